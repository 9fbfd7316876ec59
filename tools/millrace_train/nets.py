"""The networks. All take uint8 [N, bytes] and give float32 [N, classes] logits."""
from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional as F


class ByteNet(nn.Module):
    """Byte embedding, three strided 1-D convolutions, the maximum and the mean over positions.

    The embedding and the first convolution are one linear map of (byte, place in the window): `fold`
    turns them into one table of 256 * window rows, which is looked up and added.
    """

    def __init__(self, classes: int, width: int = 64, last: int = 128, window: int = 8, stride: int = 4,
                 embedding: int = 16, dropout: float = 0.3):
        super().__init__()
        self.window, self.stride = window, stride
        self.embedding = nn.Embedding(256, embedding)
        self.first = nn.Conv1d(embedding, width, window, stride)
        self.norm1 = nn.BatchNorm1d(width)
        self.second = nn.Conv1d(width, width, 5, 2, padding=2)
        self.norm2 = nn.BatchNorm1d(width)
        self.third = nn.Conv1d(width, last, 3, 2, padding=1)
        self.norm3 = nn.BatchNorm1d(last)
        self.dropout = nn.Dropout(dropout)
        self.head = nn.Linear(2 * last, classes)

    def forward(self, x: Tensor) -> Tensor:
        h = self.embedding(x.long()).transpose(1, 2)
        h = F.relu(self.norm1(self.first(h)))
        h = F.relu(self.norm2(self.second(h)))
        h = F.relu(self.norm3(self.third(h)))
        h = torch.cat((h.amax(2), h.mean(2)), 1)
        return self.head(self.dropout(h))


class Folded(nn.Module):
    """A ByteNet for inference: batch norms folded in, the first layer a table."""

    def __init__(self, net: ByteNet, temperature: float):
        super().__init__()
        self.window, self.stride = net.window, net.stride
        first_weight, first_bias = _fold_norm(net.first, net.norm1)
        # [out, embedding, window] x [256, embedding] -> [window * 256, out]
        table = torch.einsum("oew,be->wbo", first_weight, net.embedding.weight)
        self.register_buffer("table", table.reshape(-1, table.shape[2]).contiguous())
        self.register_buffer("first_bias", first_bias)
        self.register_buffer("places", torch.arange(net.window) * 256)
        self.second = _folded(net.second, net.norm2)
        self.third = _folded(net.third, net.norm3)
        head = nn.Conv1d(net.head.in_features, net.head.out_features, 1)
        head.weight.data = net.head.weight.data.unsqueeze(2) / temperature
        head.bias.data = net.head.bias.data / temperature
        self.head = head

    def forward(self, x: Tensor) -> Tensor:
        windows = x.unfold(1, self.window, self.stride).long() + self.places
        rows, places = windows.shape[0], windows.shape[1]
        h = F.embedding_bag(windows.reshape(-1, self.window), self.table, mode="sum")
        h = F.relu(h + self.first_bias).reshape(rows, places, -1).transpose(1, 2).contiguous()
        h = F.relu(self.second(h))
        h = F.relu(self.third(h))
        h = torch.cat((h.amax(2), h.mean(2)), 1)
        # As a convolution: a row's result does not depend on how many rows there are.
        return self.head(h.unsqueeze(2)).squeeze(2)


class LeNet(nn.Module):
    """Like the network of Wang et al. (ICOIN 2017), for comparison: the bytes as a square picture."""

    def __init__(self, classes: int, side: int = 28):
        super().__init__()
        self.side = side
        self.features = nn.Sequential(
            nn.Conv2d(1, 32, 5, padding=2), nn.ReLU(), nn.MaxPool2d(2),
            nn.Conv2d(32, 64, 5, padding=2), nn.ReLU(), nn.MaxPool2d(2))
        self.head = nn.Sequential(nn.Linear(64 * (side // 4) ** 2, 1024), nn.ReLU(), nn.Dropout(0.5),
                                  nn.Linear(1024, classes))

    def forward(self, x: Tensor) -> Tensor:
        h = x.to(torch.float32).div(255.0).reshape(-1, 1, self.side, self.side)
        return self.head(self.features(h).flatten(1))


def _fold_norm(conv: nn.Conv1d, norm: nn.BatchNorm1d) -> tuple[Tensor, Tensor]:
    scale = norm.weight.data / torch.sqrt(norm.running_var + norm.eps)
    return (conv.weight.data * scale[:, None, None],
            (conv.bias.data - norm.running_mean) * scale + norm.bias.data)


def _folded(conv: nn.Conv1d, norm: nn.BatchNorm1d) -> nn.Conv1d:
    out = nn.Conv1d(conv.in_channels, conv.out_channels, conv.kernel_size[0], conv.stride[0],
                    padding=conv.padding[0])
    out.weight.data, out.bias.data = _fold_norm(conv, norm)
    return out
