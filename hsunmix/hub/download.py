"""Checkpoints from the Hugging Face Hub: configurations and safetensors, never code, never pickles.

Weights are checked before they are used: the header against the length of the file, and a file from the cache against
the SHA-256 by which the Hub calls it.
"""

from __future__ import annotations

import hashlib
import json
import os
import re
from pathlib import Path
from typing import Any

from huggingface_hub import snapshot_download
from huggingface_hub.errors import HfHubHTTPError, HFValidationError, LocalEntryNotFoundError
from safetensors import SafetensorError, safe_open

NETWORKS = ("encoder", "unet", "endmember_unet")  # the components of a pipeline that have weights
_OPTIONS = ("cache_dir", "force_download", "local_files_only", "token", "revision")
_HINT = 'The weights that come with the package: `hsunmix.bundled_checkpoint("base")`.'


def fetch(repo_id: str, subfolder: str | None = None, variant: str | None = None, **kwargs: Any) -> str:
    """Download a repository, or find it in the cache: JSON, and the safetensors of one variant.

    Args:
        repo_id: repository, "user/name".
        subfolder: only this folder of it.
        variant: "fp16" for `diffusion_pytorch_model.fp16.safetensors`; None for the files without a variant.
        **kwargs: options of `from_pretrained`; cache_dir, force_download, local_files_only, token, revision are used.

    Returns:
        Folder of the snapshot.

    Raises:
        OSError: the repository can't be had, or not completely.
    """
    options = {key: value for key, value in kwargs.items() if key in _OPTIONS and value is not None}
    inside = f"{subfolder}/" if subfolder else ""
    weights = ["*.safetensors"] if variant is None else [f"*model.{variant}.safetensors", f"*model.{variant}-*tensors"]
    try:
        return snapshot_download(
            repo_id,
            allow_patterns=[inside + pattern for pattern in ("*.json", *weights)],
            ignore_patterns=["*model.*.safetensors"] if variant is None else None,
            **options,
        )
    except LocalEntryNotFoundError as error:
        partly = "only partly" if type(error).__name__ == "IncompleteSnapshotError" else "not"
        raise OSError(
            f"{repo_id} is no folder, {partly} in the cache, and the Hub can't be reached or is switched off. "
            f"Load it once with a connection; files that are there are kept. {_HINT}"
        ) from error
    except (HfHubHTTPError, HFValidationError) as error:
        revision = kwargs.get("revision") or "main"
        raise OSError(f"{repo_id} (revision {revision}) can't be had from the Hub: {error} {_HINT}") from error
    except Exception as error:
        if not is_interruption(error):
            raise
        raise OSError(
            f"The download of {repo_id} broke off ({type(error).__name__}: {error}). "
            "Load it again: it goes on with the files that are missing."
        ) from error


def fetch_pipeline(repo_id: str, variant: str | None = None, **kwargs: Any) -> str:
    """`fetch`, and make sure that it is a whole pipeline.

    Args:
        repo_id: repository, "user/name".
        variant: of the weights.
        **kwargs: see `fetch`.

    Returns:
        Folder of the snapshot.

    Raises:
        OSError: the repository can't be had, or holds no pipeline in safetensors.
    """
    folder = fetch(repo_id, variant=variant, **kwargs)
    index = Path(folder, "model_index.json")
    if not index.is_file():
        raise OSError(f"{repo_id} holds no model_index.json: it is not a pipeline.")
    for component, value in json.loads(index.read_text(encoding="utf-8")).items():
        if not isinstance(value, list):
            continue
        files = [path.name for path in Path(folder, component).glob("*")]
        if not any(name.endswith("config.json") for name in files):
            raise OSError(f"{repo_id} has no configuration of `{component}`, which its model_index.json names.")
        if component in NETWORKS and not any(_is_weights(name, variant) for name in files):
            kind = "safetensors" if variant is None else f"safetensors of the variant {variant}"
            raise OSError(f"{repo_id} has no weights of `{component}` as {kind}; other formats are refused.")
    return folder


def _is_weights(name: str, variant: str | None) -> bool:
    marks = name.removesuffix(".safetensors").partition(".")[2]
    return name.endswith(".safetensors") and marks.partition("-")[0] == (variant or "")


def verify_weights(folder: str | os.PathLike[str]) -> None:
    """Refuse safetensors that are truncated, damaged, or not what the Hub's checksum says.

    Files in the cache of `huggingface_hub` are links to files named by their SHA-256, which is compared; elsewhere
    there is nothing to compare with.

    Args:
        folder: one network's files.

    Raises:
        OSError: a file is not sound.
    """
    for path in sorted(Path(folder).glob("*.safetensors")):
        try:
            with safe_open(path, framework="pt"):
                pass
        except (SafetensorError, OSError) as error:
            raise OSError(f"{path} is truncated or damaged ({error}): fetch or save it again.") from error
        blob = path.resolve()
        if blob.parent.name == "blobs" and re.fullmatch("[0-9a-f]{64}", blob.name):
            if hashlib.sha256(blob.read_bytes()).hexdigest() != blob.name:
                raise OSError(
                    f"{path} is damaged or was tampered with: its SHA-256 is not {blob.name}, as the Hub says. "
                    "Load it again with `force_download=True`."
                )


def is_interruption(error: Exception) -> bool:
    """Whether a connection failed; the HTTP library beneath `huggingface_hub` differs from version to version."""
    libraries = ("httpx", "httpx2", "httpcore", "httpcore2", "requests", "urllib3")
    return isinstance(error, OSError) or type(error).__module__.partition(".")[0] in libraries
