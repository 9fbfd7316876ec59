"""The training loop, the figures, the calibration."""
from __future__ import annotations

import copy
import math

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F

EVALUATION_ROWS = 256


def logits_of(net: nn.Module, x: Tensor) -> Tensor:
    net.eval()
    with torch.inference_mode():
        return torch.cat([net(x[i:i + EVALUATION_ROWS]) for i in range(0, len(x), EVALUATION_ROWS)])


def augment(x: Tensor, generator: torch.Generator) -> Tensor:
    """Random bytes for some, and for a part of the rows an end cut off: a session's first bytes must do."""
    noise = torch.rand(x.shape, generator=generator) < 0.03
    x = torch.where(noise, torch.randint(0, 256, x.shape, generator=generator, dtype=torch.uint8), x)
    cut = torch.randint(x.shape[1] // 8, x.shape[1] * 4, (len(x), 1), generator=generator)
    return torch.where(torch.arange(x.shape[1]) < cut, x, torch.zeros_like(x))


def train(net: nn.Module, x: Tensor, y: Tensor, epochs: int, seed: int, rate: float,
          batch: int = 64, report=print) -> nn.Module:
    """Returns the running mean of the weights."""
    generator = torch.Generator().manual_seed(seed)
    optimizer = torch.optim.AdamW(net.parameters(), lr=rate, weight_decay=1e-2)
    steps = math.ceil(len(x) / batch) * epochs
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, max_lr=rate, total_steps=max(steps, 2))
    mean = copy.deepcopy(net)
    step = 0
    for epoch in range(epochs):
        net.train()
        order = torch.randperm(len(x), generator=generator)
        total = 0.0
        for i in range(0, len(x), batch):
            rows = order[i:i + batch]
            if len(rows) < 2:
                continue
            output = net(augment(x[rows], generator))
            loss = F.cross_entropy(output, y[rows], label_smoothing=0.05)
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            schedule.step()
            total += float(loss.detach()) * len(rows)
            step += 1
            decay = min(0.998, step / (step + 10))
            with torch.no_grad():
                for kept, now in zip(mean.state_dict().values(), net.state_dict().values()):
                    if kept.dtype.is_floating_point:
                        kept.mul_(decay).add_(now, alpha=1 - decay)
                    else:
                        kept.copy_(now)
        report(f"epoch {epoch + 1}/{epochs}: loss {total / len(x):.4f}")
    return mean.eval()


def scores(y: np.ndarray, predicted: np.ndarray, classes: int) -> tuple[float, float, list[float]]:
    """Accuracy, macro F1, F1 of each class."""
    f1 = []
    for c in range(classes):
        right = int(((predicted == c) & (y == c)).sum())
        both = int((predicted == c).sum() + (y == c).sum())
        f1.append(2 * right / both if both else 0.0)
    return float((predicted == y).mean()), float(np.mean(f1)), f1


def temperature_of(logits: Tensor, y: Tensor) -> float:
    """The divisor that makes the soft-max fit the labels best (Guo et al., ICML 2017)."""
    grid = torch.linspace(0.3, 3.0, 271)
    losses = torch.stack([F.cross_entropy(logits / t, y) for t in grid])
    return float(grid[int(losses.argmin())])


def thresholds(probabilities: np.ndarray, y: np.ndarray) -> list[dict[str, float]]:
    confidence, predicted = probabilities.max(1), probabilities.argmax(1)
    table = []
    for t in (0.5, 0.6, 0.7, 0.8, 0.9, 0.95, 0.99):
        answered = confidence >= t
        right = float((predicted[answered] == y[answered]).mean()) if answered.any() else 1.0
        table.append({"threshold": t, "answered": float(answered.mean()), "right": right})
    return table
