"""Models: one file a paper, one line here. Importing this module registers their components as factories."""

from dgm_ray.models.architecture import Architecture, build_architecture, count_parameters
from dgm_ray.models.autoencoder import AutoEncoder
from dgm_ray.models.gan import GAN
from dgm_ray.models.medgan import MedGAN
from dgm_ray.models.noise_search import NoiseSearch
from dgm_ray.models.phase import Batch, Encodes, Imputes, Model, Phase, Samples, parameters_of

MODELS = (AutoEncoder, GAN, MedGAN)

__all__ = [
    "GAN",
    "MODELS",
    "AutoEncoder",
    "MedGAN",
    "Architecture",
    "Batch",
    "Encodes",
    "Imputes",
    "Model",
    "NoiseSearch",
    "Phase",
    "Samples",
    "build_architecture",
    "count_parameters",
    "parameters_of",
]
