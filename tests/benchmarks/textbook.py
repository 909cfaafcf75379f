"""The program that a textbook would write: torchvision transforms, DataLoader, plain SGD."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch
from PIL import Image
from torch import Tensor, nn
from torch.utils.data import DataLoader, Dataset
from torchvision import transforms

if TYPE_CHECKING:
    from bench.data import Images


class FashionMNIST(Dataset[tuple[Tensor, int]]):
    """As `torchvision.datasets.FashionMNIST`: a PIL image an item, then the transform."""

    def __init__(self, images: Images, transform: transforms.Compose) -> None:
        self.data = images.images[:, 0]
        self.targets = images.labels
        self.transform = transform

    def __len__(self) -> int:
        return len(self.data)

    def __getitem__(self, index: int) -> tuple[Tensor, int]:
        image = Image.fromarray(self.data[index].numpy())
        return self.transform(image), int(self.targets[index])


def loader(
    images: Images,
    mean: tuple[float, ...],
    std: tuple[float, ...],
    *,
    batch_size: int,
    input_size: int = 28,
) -> DataLoader[tuple[Tensor, int]]:
    """Random crop, flip, tensor, normalisation; resized first where the size differs."""
    steps: list[object] = [] if input_size == 28 else [transforms.Resize(input_size)]
    steps += [
        transforms.RandomCrop(input_size, padding=2, padding_mode="reflect"),
        transforms.RandomHorizontalFlip(),
        transforms.ToTensor(),
        transforms.Normalize(mean, std),
    ]
    dataset = FashionMNIST(images, transforms.Compose(steps))
    return DataLoader(dataset, batch_size=batch_size, shuffle=True, num_workers=0)


def train(model: nn.Module, batches: DataLoader[tuple[Tensor, int]], steps: int) -> None:
    """Train *steps* steps: contiguous tensors, SGD as it comes, figures read every step."""
    criterion = nn.CrossEntropyLoss(label_smoothing=0.1)
    optimizer = torch.optim.SGD(
        model.parameters(), lr=0.1, momentum=0.9, nesterov=True, weight_decay=5e-4
    )
    model.train()
    loss_sum = correct = 0.0
    for _, (images, labels) in zip(range(steps), batches, strict=False):
        optimizer.zero_grad()
        output = model(images)
        loss = criterion(output, labels)
        loss.backward()
        optimizer.step()
        loss_sum += loss.item() * len(labels)
        correct += (output.argmax(1) == labels).sum().item()
