"""Checkpoints to the Hugging Face Hub: one commit each, so that a repository is never in two halves."""

from __future__ import annotations

import os
from pathlib import Path

import torch
from huggingface_hub import HfApi, create_repo
from huggingface_hub.errors import HfHubHTTPError, HFValidationError
from safetensors.torch import load_file, save_file

from .download import is_interruption

VARIANT_DTYPES = {"fp16": torch.float16, "bf16": torch.bfloat16}


def make_repository(repo_id: str, private: bool | None = None, token: str | bool | None = None) -> str:
    """Make a repository, where there is none.

    Returns:
        Its full name.

    Raises:
        OSError: it can't be made.
    """
    with_reason = f"The repository {repo_id} can't be made or written to"
    try:
        return create_repo(repo_id, private=private, token=token, exist_ok=True).repo_id
    except (HfHubHTTPError, HFValidationError) as error:
        raise OSError(f"{with_reason}: {error} Is there a token (`hf auth login`, or HF_TOKEN)?") from error
    except Exception as error:
        if not is_interruption(error):
            raise
        raise OSError(f"{with_reason}: the Hub can't be reached ({type(error).__name__}: {error}).") from error


def upload_folder(
    folder: str | os.PathLike[str],
    repo_id: str,
    message: str,
    token: str | bool | None = None,
    create_pr: bool = False,
    subfolder: str | None = None,
) -> str:
    """Upload everything in a folder as one commit; other files of the repository stay.

    Args:
        folder: what to upload.
        repo_id: repository, which exists.
        message: of the commit.
        token: for the Hub.
        create_pr: as a pull request.
        subfolder: where it goes.

    Returns:
        Address of the commit.

    Raises:
        OSError: it did not arrive; the repository is as it was.
    """
    try:
        commit = HfApi(token=token).upload_folder(
            repo_id=repo_id,
            folder_path=folder,
            path_in_repo=subfolder,
            commit_message=message,
            create_pr=create_pr,
        )
        return str(commit)
    except Exception as error:
        if not (is_interruption(error) or isinstance(error, (HfHubHTTPError, RuntimeError))):
            raise
        raise OSError(
            f"The upload to {repo_id} broke off ({type(error).__name__}: {error}). The repository is as it was; "
            "push again: files that have arrived are not sent twice."
        ) from error


def cast_weights(folder: str | os.PathLike[str], variant: str | None) -> None:
    """Rewrite the safetensors of a folder in the number format that a variant's name promises.

    Args:
        folder: with its subfolders.
        variant: "fp16" or "bf16"; others say nothing about numbers, and nothing is done.

    Raises:
        ValueError: a weight is too large for the format.
    """
    dtype = VARIANT_DTYPES.get(variant or "")
    for path in sorted(Path(folder).rglob("*.safetensors")) if dtype else ():
        tensors = load_file(path)
        for key, value in tensors.items():
            tensors[key] = value.to(dtype) if value.is_floating_point() else value
            if not torch.isfinite(tensors[key]).all():
                raise ValueError(f"`variant` {variant}: {path.parent.name} has weights beyond its range, in {key}.")
        save_file(tensors, path, metadata={"format": "pt"})
