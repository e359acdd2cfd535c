"""Semi-blind hyperspectral unmixing with diffusion models."""
__version__ = "0.1.0"
