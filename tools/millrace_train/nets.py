"""The networks. All take uint8 [N, bytes] and give float32 [N, classes] logits."""
from __future__ import annotations

import numpy as np
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

    def folded(self, temperature: float) -> nn.Module:
        return Folded(self, temperature)


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
        self.head = _head_of(net.head, temperature)

    def forward(self, x: Tensor) -> Tensor:
        windows = x.unfold(1, self.window, self.stride).long() + self.places
        rows, places = windows.shape[0], windows.shape[1]
        h = F.embedding_bag(windows.reshape(-1, self.window), self.table, mode="sum")
        h = F.relu(h + self.first_bias).reshape(rows, places, -1).transpose(1, 2).contiguous()
        h = F.relu(self.second(h))
        h = F.relu(self.third(h))
        h = torch.cat((h.amax(2), h.mean(2)), 1)
        return self.head(h.unsqueeze(2)).squeeze(2)


def ngram_buckets(x: Tensor, window: int, bits: int) -> Tensor:
    """Hashes of the byte n-grams (n = 1 to 4) that begin at each place, [N * windows, 4 * window].

    A hash is the top `bits` bits of a sum of the bytes, each times an odd number of its place and n,
    modulo 2**32. An end that does not fill a window is filled up with zeros, and so are the last
    n-grams.
    """
    rows, windows = x.shape[0], (x.shape[1] + window - 1) // window
    size = windows * window
    one = F.pad(x, (0, size + 3 - x.shape[1])).to(torch.int32) * -1640531535
    two = torch.add(one[:, :size + 2], one[:, 1:], alpha=40503)
    three = torch.add(two[:, :size], one[:, 2:size + 2], alpha=1013904223)
    four = torch.add(two[:, :size], two[:, 2:], alpha=1664525)
    shape = [rows, windows, window]
    hashes = torch.cat((one[:, :size].view(shape), two[:, :size].view(shape), three.view(shape),
                        four.view(shape)), 2).reshape(rows * windows, -1)
    # The shift keeps the sign: from -2**(bits - 1) on.
    return (hashes >> (32 - bits)).add_(1 << (bits - 1))


def neighbours(h: Tensor, count: int, stride: int) -> Tensor:
    """[N, places, channels] -> [N, fewer places, count * channels]: the input of a convolution, so
    that it is one matrix product. Beyond the ends there are zeros."""
    rows, channels = h.shape[0], h.shape[2]
    padding = count // 2 * channels
    flat = F.pad(h.reshape(rows, -1), (padding, padding))
    return flat.unfold(1, count * channels, stride * channels)


class BagSum(torch.autograd.Function):
    """embedding_bag(mode="sum") for less than 65,536 table rows. Its gradient is several times faster
    than torch's own: the bags of each table row are a bag themselves."""

    @staticmethod
    def forward(context, buckets: Tensor, table: Tensor) -> Tensor:
        context.buckets, context.rows = buckets, table.shape[0]
        return F.embedding_bag(buckets, table, mode="sum")

    @staticmethod
    def backward(context, gradient: Tensor):
        buckets = context.buckets.reshape(-1)
        order = torch.from_numpy(np.argsort(buckets.numpy().astype(np.uint16), kind="stable"))
        bags = torch.div(order, context.buckets.shape[1], rounding_mode="floor")
        counts = torch.bincount(buckets, minlength=context.rows)
        return None, F.embedding_bag(bags, gradient.contiguous(), torch.cumsum(counts, 0) - counts, mode="sum")


class NgramNet(nn.Module):
    """Hashed byte n-grams, summed over windows of 16 places, one convolution over the windows, the
    maximum and the mean. Nearly all of it is looking up and adding: several times faster than ByteNet.

    32 channels: libtorch's embedding_bag is fast for 16, 32, 64 and 128 only.
    """

    def __init__(self, classes: int, width: int = 64, channels: int = 32, window: int = 16, bits: int = 14,
                 neighbours: int = 3, stride: int = 2, dropout: float = 0.3):
        super().__init__()
        self.window, self.bits, self.neighbours, self.stride = window, bits, neighbours, stride
        # Small: rows that training never meets must add nothing.
        self.table = nn.Parameter(torch.randn(1 << bits, channels) * 0.01)
        self.norm1 = nn.BatchNorm1d(channels)
        self.second = nn.Linear(neighbours * channels, width)
        self.norm2 = nn.BatchNorm1d(width)
        self.dropout = nn.Dropout(dropout)
        self.head = nn.Linear(2 * width, classes)

    def forward(self, x: Tensor) -> Tensor:
        h = BagSum.apply(ngram_buckets(x, self.window, self.bits), self.table)
        h = F.relu(self.norm1(h)).reshape(len(x), -1, self.table.shape[1])
        h = neighbours(h, self.neighbours, self.stride)
        places = h.shape[1]
        h = F.relu(self.norm2(self.second(h.reshape(len(x) * places, -1)))).reshape(len(x), places, -1)
        return self.head(self.dropout(torch.cat((h.amax(1), h.mean(1)), 1)))

    def folded(self, temperature: float) -> nn.Module:
        return FoldedNgrams(self, temperature)


class FoldedNgrams(nn.Module):
    """A NgramNet for inference: batch norms folded in."""

    def __init__(self, net: NgramNet, temperature: float):
        super().__init__()
        self.window, self.bits, self.neighbours, self.stride = net.window, net.bits, net.neighbours, net.stride
        scale = net.norm1.weight.data / torch.sqrt(net.norm1.running_var + net.norm1.eps)
        self.register_buffer("table", net.table.data * scale)
        self.register_buffer("first_bias", net.norm1.bias.data - net.norm1.running_mean * scale)
        scale = net.norm2.weight.data / torch.sqrt(net.norm2.running_var + net.norm2.eps)
        self.register_buffer("second", (net.second.weight.data * scale[:, None]).t().contiguous())
        self.register_buffer("second_bias",
                             (net.second.bias.data - net.norm2.running_mean) * scale + net.norm2.bias.data)
        self.head = _head_of(net.head, temperature)

    def forward(self, x: Tensor) -> Tensor:
        rows = x.shape[0]
        h = F.embedding_bag(ngram_buckets(x, self.window, self.bits), self.table, mode="sum")
        h = (h + self.first_bias).relu_().reshape(rows, -1, self.table.shape[1])
        h = neighbours(h, self.neighbours, self.stride)
        places = h.shape[1]
        h = torch.addmm(self.second_bias, h.reshape(rows * places, -1), self.second)
        h = h.relu_().reshape(rows, places, -1)
        h = torch.cat((h.amax(1), h.mean(1)), 1)
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


def _head_of(linear: nn.Linear, temperature: float) -> nn.Conv1d:
    """As a convolution: a row's result does not depend on how many rows there are."""
    head = nn.Conv1d(linear.in_features, linear.out_features, 1)
    head.weight.data = linear.weight.data.unsqueeze(2) / temperature
    head.bias.data = linear.bias.data / temperature
    return head
