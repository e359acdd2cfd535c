"""The Hugging Face Hub: checkpoints from it (configurations and safetensors only) and to it (with our own card)."""

from .download import NETWORKS, fetch, fetch_pipeline, verify_weights
from .sharing import HubNetwork, HubPipeline, weights_sha256
from .upload import upload_folder

__all__ = [
    "NETWORKS",
    "HubNetwork",
    "HubPipeline",
    "fetch",
    "fetch_pipeline",
    "upload_folder",
    "verify_weights",
    "weights_sha256",
]
