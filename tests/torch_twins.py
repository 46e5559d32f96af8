"""Networks of the zoo in PyTorch, with the names that torchvision and timm give to their parts."""

from collections import OrderedDict

import torch
from torch import nn
from torch.nn import BatchNorm2d as Norm
from torch.nn import functional as F

# Of MobileNetV2: expansion, channels, blocks, stride.
STAGES = ((1, 16, 1, 1), (6, 24, 2, 2), (6, 32, 3, 2), (6, 64, 4, 2), (6, 96, 3, 1))
STAGES = (*STAGES, (6, 160, 3, 2), (6, 320, 1, 1))


def conv(inputs, outputs, size, stride=1, groups=1):
    return nn.Conv2d(inputs, outputs, size, stride, size // 2, groups=groups, bias=False)


class Block(nn.Module):
    """A residual block of torchvision's and timm's ResNet. convs: (outputs, size, stride)."""

    def __init__(self, inputs, convs):
        super().__init__()
        self.num_convs, first = len(convs), inputs
        for i, (outputs, size, stride) in enumerate(convs, start=1):
            setattr(self, f"conv{i}", conv(inputs, outputs, size, stride))
            setattr(self, f"bn{i}", Norm(outputs))
            inputs = outputs
        stride = max(stride for *_, stride in convs)
        is_same = stride == 1 and first == inputs
        shortcut = nn.Sequential(conv(first, inputs, 1, stride), Norm(inputs))
        self.downsample = nn.Identity() if is_same else shortcut

    def forward(self, x):
        y = x
        for i in range(1, self.num_convs + 1):
            y = getattr(self, f"bn{i}")(getattr(self, f"conv{i}")(y))
            y = F.relu(y) if i < self.num_convs else y
        return F.relu(y + self.downsample(x))


class ResNet(nn.Module):
    """torchvision's and timm's."""

    def __init__(self, depths, is_bottleneck):
        super().__init__()
        self.conv1, self.bn1 = conv(3, 64, 7, 2), Norm(64)
        inputs = 64
        for number, depth in enumerate(depths, start=1):
            blocks, planes = [], 32 * 2**number
            for i in range(depth):
                stride = 2 if number > 1 and i == 0 else 1
                convs = [(planes, 3, stride), (planes, 3, 1)]
                if is_bottleneck:
                    convs = [(planes, 1, 1), (planes, 3, stride), (4 * planes, 1, 1)]
                blocks.append(Block(inputs, convs))
                inputs = convs[-1][0]
            setattr(self, f"layer{number}", nn.Sequential(*blocks))
        self.fc = nn.Linear(inputs, 1000)

    def forward(self, x):
        x = F.max_pool2d(F.relu(self.bn1(self.conv1(x))), 3, 2, 1)
        x = self.layer4(self.layer3(self.layer2(self.layer1(x))))
        return self.fc(x.mean((2, 3)))


class Residual(nn.Sequential):
    """Adds its input if the shapes agree."""

    def forward(self, x):
        y = super().forward(x)
        return x + y if x.shape == y.shape else y


def conv_norm_relu6(*arguments):
    return nn.Sequential(conv(*arguments), Norm(arguments[1]), nn.ReLU6())


class TorchvisionMobileNetV2(nn.Module):
    def __init__(self):
        super().__init__()
        layers, inputs = [conv_norm_relu6(3, 32, 3, 2)], 32
        for expansion, outputs, depth, stride in STAGES:
            for i in range(depth):
                hidden = inputs * expansion
                expand = [conv_norm_relu6(inputs, hidden, 1)] if expansion > 1 else []
                depthwise = conv_norm_relu6(hidden, hidden, 3, stride if i == 0 else 1, hidden)
                project = conv(hidden, outputs, 1), Norm(outputs)
                block = Residual(OrderedDict(conv=nn.Sequential(*expand, depthwise, *project)))
                layers.append(block)
                inputs = outputs
        self.features = nn.Sequential(*layers, conv_norm_relu6(inputs, 1280, 1))
        self.classifier = nn.Sequential(nn.Dropout(0.2), nn.Linear(1280, 1000))

    def forward(self, x):
        return self.classifier(self.features(x).mean((2, 3)))


class TimmMobileNetV2(nn.Module):
    def __init__(self):
        super().__init__()
        self.conv_stem, self.bn1 = conv(3, 32, 3, 2), Norm(32)
        stages, inputs = [], 32
        for expansion, outputs, depth, stride in STAGES:
            blocks = []
            for i in range(depth):
                hidden = inputs * expansion
                depthwise = conv(hidden, hidden, 3, stride if i == 0 else 1, hidden)
                if expansion == 1:
                    layers = {"conv_dw": depthwise, "bn1": Norm(hidden), "act1": nn.ReLU6()}
                    layers |= {"conv_pw": conv(hidden, outputs, 1), "bn2": Norm(outputs)}
                else:
                    layers = {"conv_pw": conv(inputs, hidden, 1), "bn1": Norm(hidden)}
                    layers |= {"act1": nn.ReLU6(), "conv_dw": depthwise, "bn2": Norm(hidden)}
                    layers |= {"act2": nn.ReLU6(), "conv_pwl": conv(hidden, outputs, 1)}
                    layers |= {"bn3": Norm(outputs)}
                blocks.append(Residual(OrderedDict(layers)))
                inputs = outputs
            stages.append(nn.Sequential(*blocks))
        self.blocks = nn.Sequential(*stages)
        self.conv_head, self.bn2 = conv(inputs, 1280, 1), Norm(1280)
        self.classifier = nn.Linear(1280, 1000)

    def forward(self, x):
        x = self.blocks(F.relu6(self.bn1(self.conv_stem(x))))
        return self.classifier(F.relu6(self.bn2(self.conv_head(x))).mean((2, 3)))


class DenseBlock(nn.Module):
    def __init__(self, inputs, depth):
        super().__init__()
        for i in range(1, depth + 1):
            layers = {"norm1": Norm(inputs), "relu1": nn.ReLU(), "conv1": conv(inputs, 128, 1)}
            layers |= {"norm2": Norm(128), "relu2": nn.ReLU(), "conv2": conv(128, 32, 3)}
            self.add_module(f"denselayer{i}", nn.Sequential(OrderedDict(layers)))
            inputs += 32

    def forward(self, x):
        for layer in self.children():
            x = torch.cat([x, layer(x)], dim=1)
        return x


class DenseNet121(nn.Module):
    """torchvision's and timm's."""

    def __init__(self):
        super().__init__()
        layers = {"conv0": conv(3, 64, 7, 2), "norm0": Norm(64), "relu0": nn.ReLU()}
        layers["pool0"] = nn.MaxPool2d(3, 2, 1)
        features = 64
        for number, depth in enumerate((6, 12, 24, 16), start=1):
            layers[f"denseblock{number}"] = DenseBlock(features, depth)
            features += 32 * depth
            if number < 4:
                transition = {"norm": Norm(features), "relu": nn.ReLU()}
                transition |= {"conv": conv(features, features // 2, 1), "pool": nn.AvgPool2d(2)}
                layers[f"transition{number}"] = nn.Sequential(OrderedDict(transition))
                features //= 2
        self.features = nn.Sequential(OrderedDict(layers | {"norm5": Norm(features)}))
        self.classifier = nn.Linear(features, 1000)

    def forward(self, x):
        return self.classifier(F.relu(self.features(x)).mean((2, 3)))
