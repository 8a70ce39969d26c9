"""Networks of the literature, each with its source.

Every function takes the shape of one sample and returns a network. `classes` is how many there are,
or their names, as a Dataset has them.
"""

from collections.abc import Callable

from xpnet.models.alexnet import alexnet, vgg16, zfnet
from xpnet.models.compact import all_cnn, mobilenet_v2, squeezenet1_0, squeezenet1_1
from xpnet.models.darknet import (
    darknet19,
    darknet53,
    darknet_densenet201,
    darknet_resnet50,
    darknet_tiny,
)
from xpnet.models.densenet import densenet121
from xpnet.models.digits import bilici, lecun1989, lenet5, mlp, numpy_cnn
from xpnet.models.images import conv_autoencoder, espcn, unet
from xpnet.models.inception import googlenet
from xpnet.models.pairs import siamese
from xpnet.models.residual import resnet18, resnet34, resnet50
from xpnet.models.sequences import char_lstm, crnn
from xpnet.models.yolo import (
    yolov2,
    yolov2_tiny,
    yolov3,
    yolov3_spp,
    yolov3_tiny,
    yolov4,
    yolov4_tiny,
)
from xpnet.network import Network

MODELS: dict[str, Callable[..., Network]] = {model.__name__: model for model in (
    mlp, numpy_cnn, bilici, lecun1989, lenet5, alexnet, zfnet, vgg16, googlenet, resnet18,
    resnet34, resnet50, densenet121, all_cnn, squeezenet1_0, squeezenet1_1, mobilenet_v2, unet,
    espcn, conv_autoencoder, siamese, char_lstm, crnn)}
# Written as cfg files of Darknet, for its published weights.
DARKNETS: dict[str, Callable[..., Network]] = {model.__name__: model for model in (
    darknet19, darknet53, darknet_tiny, darknet_resnet50, darknet_densenet201, yolov2, yolov2_tiny,
    yolov3, yolov3_spp, yolov3_tiny, yolov4, yolov4_tiny)}
