"""What the pipeline and its networks add to diffusers: pushes with our own card, loads that check what they load."""

from __future__ import annotations

import hashlib
import os
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import safetensors.torch
from huggingface_hub import hf_hub_download
from huggingface_hub.errors import EntryNotFoundError
from huggingface_hub.utils import validate_hf_hub_args

from .download import NETWORKS, fetch, fetch_pipeline, verify_weights
from .upload import cast_weights, make_repository, upload_folder

_GENERIC_CARD = "that has been pushed on the Hub. This model card has been automatically generated"  # of diffusers


class _Sharing:
    """`push_to_hub` and `save_pretrained` of diffusers, with our card instead of a generic one."""

    def push_to_hub(
        self,
        repo_id: str,
        commit_message: str | None = None,
        private: bool | None = None,
        token: str | None = None,
        create_pr: bool = False,
        safe_serialization: bool = True,
        variant: str | None = None,
        subfolder: str | None = None,
        card: str | os.PathLike[str] | None = None,
    ) -> str:
        """Upload weights and card to the Hub, in one commit: all of it arrives or nothing.

        Args:
            repo_id: repository, "user/name"; made where it doesn't exist.
            commit_message: what the commit says.
            private: whether a new repository is private.
            token: for the Hub; by default the one of `hf auth login` or HF_TOKEN.
            create_pr: upload as a pull request.
            safe_serialization: must be True.
            variant: "fp16" or "bf16": weights of that format, beside those that the repository has.
            subfolder: of the repository; no card is written there.
            card: file to use as the card. By default: the measured card that comes with bundled weights, where these
                are such weights; else one that says what the weights are and that nothing is known about them. A
                card that somebody else has written into the repository is kept.

        Returns:
            Address of the commit.

        Raises:
            ValueError: `safe_serialization` is False; weights don't fit the variant.
            OSError: it did not arrive; the repository is as it was.
        """
        if not safe_serialization:
            raise ValueError("`safe_serialization` must be True: pickles are not shared.")
        text = None if card is None else Path(card).read_text(encoding="utf-8")
        with tempfile.TemporaryDirectory() as folder:
            self.save_pretrained(folder, variant=variant)  # type: ignore[attr-defined]
            cast_weights(folder, variant)
            repo_id = make_repository(repo_id, private, token)
            if text is not None:
                Path(folder, "README.md").write_text(text, encoding="utf-8")
            elif not subfolder:
                write_card(self, folder, repo_id, token)
            message = commit_message or f"Upload {type(self).__name__}" + (f", {variant}" if variant else "")
            return upload_folder(folder, repo_id, message, token, create_pr, subfolder)

    def _save_and_push(self, save: Callable[..., None], push_to_hub: bool, saving: dict, kwargs: dict) -> None:
        names = ("repo_id", "commit_message", "private", "token", "create_pr", "card")
        sharing = {name: kwargs.pop(name) for name in names if name in kwargs}
        save(**saving, **kwargs)
        if push_to_hub:
            repo_id = sharing.pop("repo_id", Path(saving["save_directory"]).name)
            sharing |= {name: saving[name] for name in ("safe_serialization", "variant")}
            self.push_to_hub(repo_id, **sharing)


class HubPipeline(_Sharing):
    """For the pipeline: what comes from the Hub is JSON and safetensors; what goes there has our card."""

    @classmethod
    @validate_hf_hub_args
    def download(cls, pretrained_model_name: str | os.PathLike, **kwargs: Any) -> str:
        """Fetch a checkpoint from the Hub: configurations and safetensors only, never code or pickles.

        Args:
            pretrained_model_name: repository, "user/name".
            **kwargs: of `from_pretrained`; cache_dir, force_download, local_files_only, token, revision, variant are
                used.

        Returns:
            Folder of the snapshot.

        Raises:
            OSError: if the repository can't be had or holds no pipeline in safetensors.
        """
        return fetch_pipeline(str(pretrained_model_name), **kwargs)

    def save_pretrained(
        self,
        save_directory: str | os.PathLike,
        safe_serialization: bool = True,
        variant: str | None = None,
        max_shard_size: int | str | None = None,
        push_to_hub: bool = False,
        **kwargs: Any,
    ) -> None:
        """Save to a folder, as diffusers does; `push_to_hub=True` then uploads, with our card.

        Args:
            save_directory: the folder; its name is the repository's, where `repo_id` gives none.
            safe_serialization: safetensors, not pickles.
            variant: part of the file names, as "fp16".
            max_shard_size: largest size of a file.
            push_to_hub: upload as well.
            **kwargs: further arguments of diffusers and of `push_to_hub`.
        """
        saving: dict[str, Any] = {"save_directory": save_directory, "safe_serialization": safe_serialization}
        saving |= {"variant": variant, "max_shard_size": max_shard_size}
        self._save_and_push(super().save_pretrained, push_to_hub, saving, kwargs)  # type: ignore[misc]


class HubNetwork(_Sharing):
    """For a network: the same, and never weights that are damaged or that are not all there."""

    def save_pretrained(
        self,
        save_directory: str | os.PathLike,
        is_main_process: bool = True,
        save_function: Callable | None = None,
        safe_serialization: bool = True,
        variant: str | None = None,
        max_shard_size: int | str = "10GB",
        push_to_hub: bool = False,
        **kwargs: Any,
    ) -> None:
        """Save to a folder, as diffusers does; `push_to_hub=True` then uploads, with our card.

        Args:
            save_directory: the folder; its name is the repository's, where `repo_id` gives none.
            is_main_process: whether to write the configuration, of several processes.
            save_function: instead of the usual one.
            safe_serialization: safetensors, not pickles.
            variant: part of the file names, as "fp16".
            max_shard_size: largest size of a file.
            push_to_hub: upload as well.
            **kwargs: further arguments of diffusers and of `push_to_hub`.
        """
        saving: dict[str, Any] = {"save_directory": save_directory, "safe_serialization": safe_serialization}
        saving |= {"variant": variant, "max_shard_size": max_shard_size}
        saving |= {"is_main_process": is_main_process, "save_function": save_function}
        self._save_and_push(super().save_pretrained, push_to_hub, saving, kwargs)  # type: ignore[misc]

    @classmethod
    def from_pretrained(cls, pretrained_model_name_or_path: str | os.PathLike, **kwargs: Any) -> Any:
        """Load the network alone, from a folder or a Hub repository.

        Args:
            pretrained_model_name_or_path: folder, or repository "user/name".
            **kwargs: of `diffusers.ModelMixin.from_pretrained`, for example `subfolder="unet"` or `revision`.

        Returns:
            The network.

        Raises:
            OSError: it can't be had, or its weights are damaged or incomplete.
        """
        name = str(pretrained_model_name_or_path)
        folder = name
        if not os.path.isdir(name):
            folder = fetch(name, **kwargs)
            for key in ("revision", "token", "force_download", "local_files_only", "cache_dir"):
                kwargs.pop(key, None)
        verify_weights(os.path.join(folder, kwargs.get("subfolder") or ""))
        return_info = kwargs.pop("output_loading_info", False)
        parent: Any = super()
        model, info = parent.from_pretrained(folder, output_loading_info=True, **kwargs)
        if info["missing_keys"]:
            missing = ", ".join(sorted(info["missing_keys"])[:3])
            raise OSError(f"{name} lacks weights of {cls.__name__} ({missing}, ...): damaged, or another network.")
        return (model, info) if return_info else model


def weights_sha256(pipe: Any) -> dict[str, str]:
    """Fingerprint of each network: the SHA-256 of the safetensors file that `save_pretrained` makes of it.

    Args:
        pipe: a `SemiBlindUnmixingPipeline`.

    Returns:
        Hexadecimal digests by the name of the component.
    """
    digests = {}
    for name in NETWORKS:
        state = {key: value.detach().cpu().contiguous() for key, value in getattr(pipe, name).state_dict().items()}
        digests[name] = hashlib.sha256(safetensors.torch.save(state, metadata={"format": "pt"})).hexdigest()
    return digests


def write_card(shared: Any, folder: str | os.PathLike[str], repo_id: str, token: str | None = None) -> None:
    """Put the card, with its pictures, beside weights that are to be uploaded; not where somebody wrote their own.

    Args:
        shared: pipeline or network.
        folder: where README.md goes.
        repo_id: repository that it will be in.
        token: for the Hub.
    """
    from hsunmix import cards

    released = cards.bundled_card(shared)
    if released is not None:
        for path in (released / "README.md", *released.glob("*.png")):
            Path(folder, path.name).write_bytes(path.read_bytes())
        return
    there = _card_of(repo_id, token)
    if there is None or cards.MARK in there or _GENERIC_CARD in there:
        Path(folder, "README.md").write_text(cards.plain_card(shared, repo_id), encoding="utf-8")


def _card_of(repo_id: str, token: str | None) -> str | None:
    with tempfile.TemporaryDirectory() as cache:
        try:
            path = hf_hub_download(repo_id, "README.md", token=token, cache_dir=cache)
        except EntryNotFoundError:
            return None
        return Path(path).read_text(encoding="utf-8")
