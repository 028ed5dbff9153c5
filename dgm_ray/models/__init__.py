"""Models: one file a paper, one line here. Importing this module registers their components as factories."""

from dgm_ray.models.arae import ARAE
from dgm_ray.models.architecture import Architecture, build_architecture, build_components, count_parameters
from dgm_ray.models.autoencoder import AutoEncoder, EncodesAndDecodes
from dgm_ray.models.gain import GAIN
from dgm_ray.models.gan import GAN
from dgm_ray.models.masked_autoencoder import MaskedAutoEncoder
from dgm_ray.models.medgan import Decoded, MedGAN
from dgm_ray.models.noise_search import NoiseSearch
from dgm_ray.models.phase import (
    Batch,
    Draws,
    Encodes,
    Imputes,
    Model,
    Phase,
    Probed,
    Reconstructs,
    Samples,
    draw_noise,
    parameters_of,
)
from dgm_ray.models.vae import VAE

MODELS = (ARAE, AutoEncoder, GAIN, GAN, MaskedAutoEncoder, MedGAN, VAE)
# The original's tasks that train the same model: what differs is the component "autoencoder".
ALIASES = {"TrainDeNoisingAutoEncoder": AutoEncoder, "TrainMIDA": AutoEncoder}

__all__ = [
    "ALIASES",
    "ARAE",
    "GAIN",
    "GAN",
    "MODELS",
    "VAE",
    "AutoEncoder",
    "MaskedAutoEncoder",
    "MedGAN",
    "Architecture",
    "Batch",
    "Decoded",
    "Draws",
    "Encodes",
    "EncodesAndDecodes",
    "Imputes",
    "Model",
    "NoiseSearch",
    "Phase",
    "Probed",
    "Reconstructs",
    "Samples",
    "build_architecture",
    "build_components",
    "count_parameters",
    "draw_noise",
    "parameters_of",
]
