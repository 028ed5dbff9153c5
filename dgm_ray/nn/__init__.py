"""Layers, activations, losses and optimizers: what models are composed of. Importing it registers all its factories."""

from dgm_ray.nn.activations import GumbelSoftmaxSampling, LeakyReLU, ReLU, Sigmoid, SoftmaxSampling, Tanh, expectations
from dgm_ray.nn.adversarial import (
    GANDiscriminatorLoss,
    GANGeneratorLoss,
    WGANCriticLoss,
    WGANCriticLossWithGradientPenalty,
    WGANGeneratorLoss,
)
from dgm_ray.nn.autoencoding import AutoEncoderLoss, Outputs, VAELoss
from dgm_ray.nn.averaged import Averaged
from dgm_ray.nn.feed_forward import FeedForward
from dgm_ray.nn.gain import GAINDiscriminatorLoss, GAINGeneratorLoss
from dgm_ray.nn.hidden import HiddenLayers, ResidualLayers
from dgm_ray.nn.imputation import (
    ImputationLayer,
    MeanAndModesImputation,
    NormalNoiseImputation,
    UniformNoiseImputation,
    ZeroImputation,
)
from dgm_ray.nn.initialization import Initialization, initialize
from dgm_ray.nn.inputs import (
    Conditional,
    ConditionalLayer,
    MaskedInputLayer,
    MiniBatchAveraging,
    MultiInputLayer,
    SingleInputLayer,
    conditioned,
)
from dgm_ray.nn.masks import compose, generate_mask, inverse_mask
from dgm_ray.nn.noise import AdditiveNormalNoise, Dropout, MultiInputDropout
from dgm_ray.nn.optimizers import SGD, Adam, Optimizer, WGANOptimizer
from dgm_ray.nn.outputs import MultiOutputLayer, SingleOutputLayer
from dgm_ray.nn.reconstruction import MSE, RMSE, MultiReconstructionLoss
from dgm_ray.nn.standardized import Standardized
from dgm_ray.nn.validation import ValidationImputationLoss, ValidationReconstructionLoss

__all__ = [
    "Adam",
    "AdditiveNormalNoise",
    "AutoEncoderLoss",
    "Averaged",
    "Conditional",
    "ConditionalLayer",
    "Dropout",
    "FeedForward",
    "GAINDiscriminatorLoss",
    "GAINGeneratorLoss",
    "GANDiscriminatorLoss",
    "GANGeneratorLoss",
    "GumbelSoftmaxSampling",
    "HiddenLayers",
    "LeakyReLU",
    "MSE",
    "MaskedInputLayer",
    "ImputationLayer",
    "Initialization",
    "MeanAndModesImputation",
    "MiniBatchAveraging",
    "MultiInputDropout",
    "MultiInputLayer",
    "MultiOutputLayer",
    "MultiReconstructionLoss",
    "NormalNoiseImputation",
    "Optimizer",
    "Outputs",
    "RMSE",
    "ReLU",
    "ResidualLayers",
    "SGD",
    "Sigmoid",
    "SingleInputLayer",
    "SingleOutputLayer",
    "SoftmaxSampling",
    "Standardized",
    "Tanh",
    "VAELoss",
    "ValidationImputationLoss",
    "ValidationReconstructionLoss",
    "WGANCriticLoss",
    "WGANCriticLossWithGradientPenalty",
    "WGANGeneratorLoss",
    "WGANOptimizer",
    "UniformNoiseImputation",
    "ZeroImputation",
    "compose",
    "conditioned",
    "expectations",
    "generate_mask",
    "initialize",
    "inverse_mask",
]
