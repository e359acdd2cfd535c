"""Checkpoints from the Hugging Face Hub: configurations and safetensors, never code, never pickles."""

from __future__ import annotations

import hashlib
import os
from typing import Any

import safetensors.torch
from huggingface_hub import snapshot_download
from huggingface_hub.errors import HfHubHTTPError, HFValidationError, LocalEntryNotFoundError

NETWORKS = ("encoder", "unet", "endmember_unet")
_OPTIONS = ("cache_dir", "force_download", "local_files_only", "token", "revision")
_HINT = 'The weights that come with the package: `hsunmix.bundled_checkpoint("base")`.'


def fetch_checkpoint(name: str, **kwargs: Any) -> str:
    """Download (or find in the cache) a pipeline repository.

    Args:
        name: repository, "user/name".
        **kwargs: options of `from_pretrained`; those that concern the download are used.

    Returns:
        Folder of the snapshot.

    Raises:
        OSError: if the repository can't be had or holds no pipeline in safetensors.
    """
    options = {key: value for key, value in kwargs.items() if key in _OPTIONS and value is not None}
    try:
        folder = snapshot_download(name, allow_patterns=["*.json", "*.safetensors"], **options)
    except LocalEntryNotFoundError as error:
        raise OSError(
            f"{name} is neither a folder nor in the cache, and the Hub can't be reached or is switched off. {_HINT}"
        ) from error
    except (HfHubHTTPError, HFValidationError) as error:
        revision = kwargs.get("revision") or "main"
        raise OSError(f"{name} (revision {revision}) can't be had from the Hub: {error} {_HINT}") from error
    if not os.path.isfile(os.path.join(folder, "model_index.json")):
        raise OSError(f"{name} holds no model_index.json: it is not a pipeline.")
    for component in NETWORKS:
        path = os.path.join(folder, component)
        if not os.path.isdir(path) or not any(file.endswith(".safetensors") for file in os.listdir(path)):
            raise OSError(f"{name} has no weights of `{component}` as safetensors; other formats are refused.")
    return folder


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
