"""final_linear on models that others wrote, and on models that cannot be followed."""

import numpy as np
import pytest
import torch
from torch import nn
from torchvision import models as tv

from multilabel_mnist import final_linear as module
from multilabel_mnist import head
from multilabel_mnist.final_linear import final_linear
from multilabel_mnist.head import head_table, replace_final_linear
from multilabel_mnist.trial import keep_random_state


def test_it_can_be_imported_from_head():
    assert head.final_linear is final_linear is module.final_linear
    assert "final_linear" in head.__all__


@pytest.mark.parametrize(
    "model",
    [
        nn.Sequential(),
        nn.ReLU(),
        nn.Sequential(nn.Linear(4, 4), nn.Conv1d(1, 1, 1)),
        nn.Embedding(3, 2),
        nn.LSTM(3, 2),
    ],
    ids=repr,
)
def test_no_last_linear_layer(model):
    with pytest.raises(ValueError, match="expected .* to end in an nn.Linear"):
        final_linear(model)
    with pytest.raises(ValueError, match="expected .* to end in an nn.Linear"):
        replace_final_linear(model, 3)


TORCHVISION = [
    "resnet18",
    "densenet121",
    "mobilenet_v2",
    "mobilenet_v3_small",
    "efficientnet_b0",
    "efficientnet_v2_s",
    "vgg11_bn",
    "alexnet",
    "vit_b_16",
    "swin_t",
    "swin_v2_t",
    "convnext_tiny",
    "mnasnet0_5",
    "shufflenet_v2_x0_5",
    "maxvit_t",
    "resnext50_32x4d",
]


@pytest.mark.parametrize("name", TORCHVISION)
def test_torchvision(name):
    with torch.device("meta"):
        model = tv.get_model(name)
        x = torch.zeros(2, 3, 224, 224)
        assert replace_final_linear(model, 7).eval()(x).shape == (2, 7)
        assert head_table(model, x).out_shape.iloc[-1] == (2, 7)


@pytest.mark.parametrize("name", ["googlenet", "inception_v3"])
def test_auxiliary_classifiers(name):
    with torch.device("meta"):
        with pytest.raises(ValueError, match="side by side .*'fc'.*aux_logits=False"):
            replace_final_linear(tv.get_model(name, init_weights=False), 7)
        model = replace_final_linear(tv.get_model(name, init_weights=False, aux_logits=False), 7)
        assert model.eval()(torch.zeros(2, 3, 299, 299)).shape == (2, 7)


@pytest.mark.parametrize(
    "name",
    [
        "resnet18",
        "vit_tiny_patch16_224",
        "mobilenetv3_small_100",
        "efficientnet_b0",
        "densenet121",
        "convnext_atto",
        "swin_tiny_patch4_window7_224",
    ],
)
def test_timm(name):
    timm = pytest.importorskip("timm")
    with torch.device("meta"):
        model = timm.create_model(name)
        assert final_linear(model)[1] is model.get_classifier()
        assert replace_final_linear(model, 7).eval()(torch.zeros(2, 3, 224, 224)).shape == (2, 7)


@pytest.mark.parametrize(
    "name, layers",
    [
        ("deit_tiny_distilled_patch16_224", "'head', 'head_dist'"),
        ("volo_d1_224", "'aux_head', 'head'"),  # adds both outputs
        ("inception_v3", "'AuxLogits.fc', 'fc'"),
    ],
)
def test_timm_with_two_classifiers(name, layers):
    timm = pytest.importorskip("timm")
    kwargs = {"aux_logits": True} if name == "inception_v3" else {}
    with torch.device("meta"):
        model = timm.create_model(name, **kwargs)
        with pytest.raises(ValueError, match=f"got 2 layers .* side by side .{layers}"):
            final_linear(model)


def test_timm_where_an_optional_argument_misleads_the_tracer():
    timm = pytest.importorskip("timm")
    with torch.device("meta"):
        model = timm.create_model("hiera_tiny_224")
        assert final_linear(model) == ("head.fc", model.get_classifier())
        assert replace_final_linear(model, 7).eval()(torch.zeros(2, 3, 224, 224)).shape == (2, 7)


class HeadFirst(nn.Module):
    def __init__(self):
        super().__init__()
        self.head = nn.Linear(8, 3)
        self.body = nn.Linear(4, 8)

    def forward(self, x):
        return self.head(self.body(x).relu())


@pytest.mark.parametrize(
    "answer",
    [
        lambda model: nn.Identity(),
        lambda model: None,
        lambda model: nn.Linear(8, 3),  # not a layer of the model
        lambda model: (nn.Identity(), nn.Identity()),
        lambda model: 1 / 0,
        lambda model: "head",
    ],
    ids=["Identity", "None", "foreign", "two Identities", "error", "name"],
)
def test_a_get_classifier_that_does_not_name_a_layer_is_ignored(answer):
    model = HeadFirst()
    model.get_classifier = lambda: answer(model)
    assert final_linear(model) == ("head", model.head)


class Noisy(HeadFirst):
    """A model that draws from all three generators while it is followed."""

    def forward(self, x):
        if np.random.rand() + torch.rand(()).item() > 3:
            return self.body(x)
        return super().forward(x + torch.rand(4))


def test_random_states_stay_as_they_were():
    model = Noisy()
    torch.manual_seed(7)
    np.random.seed(7)
    expected = (torch.rand(1), np.random.rand())
    torch.manual_seed(7)
    np.random.seed(7)
    assert final_linear(model)[0] == "head"
    assert (torch.rand(1), np.random.rand()) == expected


def test_random_states_stay_as_they_were_on_the_gpu():
    if not torch.cuda.is_available():
        pytest.skip("needs a GPU")
    torch.cuda.manual_seed(7)
    expected = torch.rand(1, device="cuda")
    torch.cuda.manual_seed(7)
    with keep_random_state(nn.Linear(2, 2).cuda()):
        torch.rand(1, device="cuda")
    assert torch.rand(1, device="cuda") == expected


@pytest.mark.parametrize("o", [None, 3, "resnet18", [nn.Linear(2, 2)], nn.Linear], ids=repr)
def test_what_is_not_a_model(o):
    with pytest.raises(TypeError, match="expected an nn.Module or a fastai Learner, got"):
        final_linear(o)
