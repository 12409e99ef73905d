"""The network and the data: scikit-learn's digits, 8x8 pixels."""

from torch import nn
from torch.utils.data import DataLoader, Subset, TensorDataset

from reference_fl import data, partition


class Net(nn.Module):
    """Two convolutions and a linear layer."""

    def __init__(self):
        super().__init__()
        self.layers = nn.Sequential(
            *block(1, 32),
            *block(32, 64),
            nn.Flatten(),
            nn.Linear(256, 10, bias=False),
        )

    def forward(self, images):
        """Scores of the ten digits, of shape (images, 10)."""
        return self.layers(images)


def block(channels, out):
    """A convolution, and a pool that halves the image."""
    convolution = nn.Conv2d(channels, out, 3, padding=1, bias=False)
    return convolution, nn.BatchNorm2d(out), nn.ReLU(), nn.MaxPool2d(2)


def train_loader(client, clients, batch_size):
    """One client's share of the training images: the shares are disjoint and of one size."""
    images = data.load("digits")
    share = partition.iid(images.train_y, clients, 0)[client].tolist()
    own = Subset(TensorDataset(images.train_x, images.train_y), share)
    return DataLoader(own, batch_size=batch_size, shuffle=True)


def test_images():
    """Images that no client trains on, and their labels."""
    images = data.load("digits")
    return images.test_x, images.test_y
