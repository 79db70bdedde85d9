"""final_linear on models that others wrote, and on models that cannot be followed."""

import re
from collections import OrderedDict, deque, namedtuple
from dataclasses import dataclass
from functools import partial
from types import MethodType, SimpleNamespace

import numpy as np
import pytest
import torch
import torch.nn.functional as F
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


def test_torchvisions_regnet_whose_weights_are_drawn_when_it_is_built():
    model = tv.regnet_y_400mf()
    assert final_linear(model) == ("fc", model.fc)


@pytest.mark.parametrize("name", ["r3d_18", "mvit_v2_s", "swin3d_t"])
def test_torchvisions_videos(name):
    with torch.device("meta"):
        model = tv.get_model(name)
        x = torch.zeros(2, 3, 16, 224, 224)
        assert replace_final_linear(model, 7).eval()(x).shape == (2, 7)


@pytest.mark.parametrize("name", ["googlenet", "inception_v3"])
def test_auxiliary_classifiers(name):
    with torch.device("meta"):
        with pytest.raises(ValueError, match="side by side .*'fc'.*aux_logits=False"):
            replace_final_linear(tv.get_model(name, init_weights=False), 7)
        model = replace_final_linear(tv.get_model(name, init_weights=False, aux_logits=False), 7)
        assert model.eval()(torch.zeros(2, 3, 299, 299)).shape == (2, 7)


def follow_advice(model, n_out=7):
    """Run the code that an error about the last layer offers, and return the error."""
    with pytest.raises(ValueError) as e:
        final_linear(model)
    advice = str(e.value).split("; ")[1]
    code = re.search(r"(model\S* = .*|model\S*\(n_out\))$", advice)
    exec(code[0], {"model": model, "nn": nn, "n_out": n_out})
    return str(e.value)


@pytest.mark.parametrize(
    "name, size, kwargs",
    [
        ("squeezenet1_0", (64, 64), {}),
        ("squeezenet1_1", (64, 64), {}),
        ("s3d", (16, 224, 224), {}),
        ("fcn_resnet50", (64, 64), {"weights_backbone": None}),
        ("deeplabv3_mobilenet_v3_large", (64, 64), {"weights_backbone": None}),
    ],
)
def test_a_convolution_at_the_end_is_replaced_by_the_code_that_the_error_offers(name, size, kwargs):
    with torch.device("meta"):
        model = tv.get_model(name, **kwargs).eval()
        message = follow_advice(model)
        out = model(torch.zeros(2, 3, *size))
    assert "to end in an nn.Linear, got an output that comes from 'classifier." in message
    assert "aux_logits" not in message
    assert (out["out"] if isinstance(out, dict) else out).shape[:2] == (2, 7)


@pytest.mark.parametrize(
    "name",
    [
        "fasterrcnn_mobilenet_v3_large_320_fpn",
        "maskrcnn_resnet50_fpn",
        "retinanet_resnet50_fpn",
        "ssd300_vgg16",
        "raft_small",
        "lraspp_mobilenet_v3_large",
    ],
)
def test_an_error_that_fits_models_without_one_last_layer(name):
    with torch.device("meta"):
        kwargs = {} if name.startswith("raft") else {"weights_backbone": None}
        model = tv.get_model(name, **kwargs)
        with pytest.raises(ValueError, match="expected .* nn.Linear.*, got .*; ") as e:
            final_linear(model)
    assert "aux_logits" not in str(e.value)
    assert "''" not in str(e.value)


# One architecture per family of timm's, where the last layer is an nn.Linear.
TIMM = """
bat_resnext26ts beit_base_patch16_224 botnet26t_256 cait_xxs24_224 coat_lite_mini coatnet_0_224
convit_tiny convmixer_768_32 convnext_atto cpubone_t0 cs3darknet_focus_m davit_tiny
deit_tiny_patch16_224 deit3_small_patch16_224 densenet121 edgenext_small efficientnet_b0
efficientvit_b0 efficientvit_m0 eva02_tiny_patch14_336 fastvit_t8 fasternet_t0 focalnet_tiny_srf
gcvit_xxtiny ghostnet_100 gmixer_12_224 hgnet_tiny hiera_tiny_224 hrnet_w18_small iformer_t
inception_next_tiny inception_resnet_v2 inception_v3 inception_v4 levit_conv_512d mambaout_femto
maxvit_nano_rw_256 mixer_s32_224 mobilenetv3_small_100 mobilenetv4_conv_small
mobilevit_xxs mobilevitv2_050 mvitv2_tiny nasnetalarge nest_tiny nextvit_small nf_regnet_b0
pit_ti_224 pnasnet5large poolformer_s12 pvt_v2_b0 rdnet_tiny regnetx_002 repghostnet_050
res2net50_26w_4s resmlp_12_224 resnest14d resnet18 rexnet_100 sequencer2d_s shvit_s1 skresnet18
starnet_s1 swin_tiny_patch4_window7_224 swinv2_tiny_window8_256 tiny_vit_5m_224 tinynet_e
tnt_s_patch16_224 tresnet_m twins_svt_small vgg11 visformer_tiny vit_tiny_patch16_224
vovnet39a csatv2 cspnext_s hardcorenas_a hieradet_small lcnetv2_small lowformer_b0
naflexvit_base_patch16_gap selecsls42 legacy_seresnet18 swinv2_cr_tiny_224 vit_base_r26_s32_224
test_vit_relpos vitamin_small_224 xception41 xcit_nano_12_p16_224
""".split()


@pytest.mark.parametrize("name", TIMM)
def test_timm(name):
    timm = pytest.importorskip("timm")
    if not timm.is_model(name):
        pytest.skip("not in this version of timm")
    with torch.device("meta"):
        model = timm.create_model(name)
        last, layer = final_linear(model)
        classifier = model.get_classifier()
        assert layer is classifier or layer in list(classifier.modules())
        replace_final_linear(model, 7).eval()
        size = model.default_cfg["input_size"]
        assert model(torch.zeros(2, *size)).shape == (2, 7)
    assert model.num_classes == 7
    assert model.get_submodule(last).out_features == 7


@pytest.mark.parametrize(
    "name, found",
    [
        ("deit_tiny_distilled_patch16_224", "side by side ('head', 'head_dist')"),
        ("levit_128s", "side by side ('head.linear', 'head_dist.linear')"),
        ("volo_d1_224", "side by side ('aux_head', 'head')"),  # adds both outputs
        ("crossvit_tiny_240", "side by side ('head.0', 'head.1')"),
        ("repvit_m0_9", "side by side ('head.head.l', 'head.head_dist.l')"),
        ("efficientformer_l1", "side by side ('head', 'head_dist')"),
        ("swiftformer_xs", "side by side ('head', 'head_dist')"),
        ("dla46_c", "comes from 'fc' (Conv2d)"),
        ("dpn48b", "comes from 'classifier' (Conv2d)"),
        ("resnetv2_50x1_bit", "comes from 'head.fc' (Conv2d)"),
        ("samvit_base_patch16", "built without classes"),
        ("vit_base_patch14_dinov2", "built without classes"),
    ],
)
def test_timms_own_method_is_advised_where_there_is_not_one_linear_layer(name, found):
    timm = pytest.importorskip("timm")
    with torch.device("meta"):
        model = timm.create_model(name).eval()
        message = follow_advice(model)
        size = model.default_cfg["input_size"]
        assert model(torch.zeros(2, *size)).shape == (2, 7)
    assert found in message
    assert "aux_logits" not in message


@pytest.mark.parametrize(
    "name", ["resnet18", "vit_tiny_patch16_224", "convnext_atto", "swin_tiny_patch4_window7_224"]
)
def test_a_model_of_timms_without_classes_has_no_last_layer(name):
    timm = pytest.importorskip("timm")
    with torch.device("meta"):
        model = timm.create_model(name, num_classes=0)
        with pytest.raises(ValueError, match="built without classes; call model.reset_classifier"):
            final_linear(model)
        on_top = nn.Sequential(model, nn.Linear(model.num_features, 5))
        assert final_linear(on_top) == ("1", on_top[1])


def test_timm_inception_with_auxiliary_classifier():
    timm = pytest.importorskip("timm")
    with torch.device("meta"):
        model = timm.create_model("inception_v3", aux_logits=True)
        message = r"side by side \('AuxLogits.fc', 'fc'\).*aux_logits=False"
        with pytest.raises(ValueError, match=message):
            final_linear(model)


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


class Net(nn.Module):
    """A network with a layer `proj` that is listed last and does not make the logits."""

    def __init__(self, **settings):
        super().__init__()
        self.body = nn.Linear(4, 8)
        self.head = nn.Linear(8, 3)
        self.proj = nn.Linear(8, 8)
        for name, value in settings.items():
            setattr(self, name, value)

    def hidden(self, x):
        return self.body(x).relu()

    def forward(self, x):
        return self.head(self.hidden(x))


class OptionalFeatures(Net):
    def forward(self, x, return_features=False):
        if return_features:
            return self.proj(self.hidden(x))
        return self.head(self.hidden(x))


class OptionOfTheModel(Net):
    return_features = False

    def forward(self, x):
        if self.return_features:
            return self.proj(self.hidden(x))
        return self.head(self.hidden(x))


class RequiredFlag(Net):
    def forward(self, x, return_features):
        hidden = self.hidden(x)
        if return_features:
            return hidden
        return self.head(hidden)


class KeywordFlag(Net):
    def forward(self, x, *, targets=None, return_features=False):
        if targets is not None:
            return F.cross_entropy(self.proj(self.hidden(x)), targets)
        if return_features:
            return self.proj(self.hidden(x))
        return self.head(self.hidden(x))


class OptionalMask(Net):
    def forward(self, x, mask=None):
        hidden = self.hidden(x)
        if mask is not None:
            hidden = self.proj(hidden * mask)
            return hidden
        return self.head(hidden)


class ByValue(Net):
    def forward(self, x):
        if x.abs().max() > 10:
            x = x / 10
        return self.head(self.hidden(x))


class ByShape(Net):
    def forward(self, x):
        if x.ndim == 1:
            x = x[None]
        if x.shape[-1] != 4:
            raise ValueError("expected 4 features")
        return self.head(self.hidden(x))


class EndlessLoop(Net):
    def forward(self, x):
        while x.norm() > 1:
            x = self.proj(x)
        return self.head(self.hidden(x))


class InTrainingOnly(Net):
    """Torchvision's detection models are like that: no targets, no training."""

    def forward(self, x, targets=None):
        if self.training and targets is None:
            raise ValueError("expected targets in training mode")
        logits = self.head(self.hidden(x))
        return F.cross_entropy(logits, targets) if self.training else logits


class Printing(Net):
    def forward(self, x):
        print("input", x)
        return super().forward(x)


@pytest.mark.parametrize(
    "kind",
    [
        OptionalFeatures,
        OptionOfTheModel,
        RequiredFlag,
        KeywordFlag,
        OptionalMask,
        ByValue,
        ByShape,
        EndlessLoop,
        InTrainingOnly,
        Printing,
    ],
)
@pytest.mark.parametrize("train", [True, False], ids=["train", "eval"])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float16, torch.bfloat16], ids=str)
def test_a_layer_behind_a_flag_is_not_the_last_one(kind, train, dtype, capsys):
    model = kind().train(train).to(dtype)
    assert final_linear(model) == ("head", model.head)
    on_top = nn.Sequential(nn.Sequential(model), nn.BatchNorm1d(3), nn.Softmax(1))
    assert final_linear(on_top) == ("0.0.head", model.head)
    assert capsys.readouterr().out == ""
    layer = replace_final_linear(model, 7).head
    assert (layer.out_features, layer.weight.dtype, layer.training) == (7, dtype, train)
    assert layer.weight.requires_grad


class EarlyExit(Net):
    def forward(self, x):
        hidden = self.hidden(x)
        if hidden.max() > 1:
            return self.proj(hidden)
        return self.head(hidden)


class OtherHeadInTraining(Net):
    def forward(self, x):
        last = self.proj if self.training else self.head
        return last(self.hidden(x))


@pytest.mark.parametrize("kind", [EarlyExit, OtherHeadInTraining])
def test_two_layers_that_take_turns_are_both_named(kind):
    with pytest.raises(ValueError, match=r"side by side \('head', 'proj'\); replace the layer"):
        final_linear(kind())


Named = namedtuple("Named", "logits hidden_states")
Outputs = namedtuple("Outputs", "scores hidden")


@dataclass
class Data:
    hidden_states: object
    logits: object


class ModelOutput(OrderedDict):
    """Like the output of a model of transformers: a dict with attributes."""

    def __getattr__(self, name):
        return self[name]


OUTPUTS = {
    "dict": lambda logits, hidden, proj: {"hidden_states": hidden, "logits": logits},
    "projection": lambda logits, hidden, proj: {"embedding": proj, "logits": logits},
    "no name": lambda logits, hidden, proj: {"states": (hidden, hidden), "y": logits},
    "ModelOutput": lambda logits, hidden, proj: ModelOutput(loss=None, logits=logits, h=proj),
    "named tuple": lambda logits, hidden, proj: Named(logits, (hidden, proj)),
    "other named tuple": lambda logits, hidden, proj: Outputs(logits, hidden),
    "dataclass": lambda logits, hidden, proj: Data(proj, logits),
    "object": lambda logits, hidden, proj: SimpleNamespace(logits=logits, hidden=proj),
    "tuple": lambda logits, hidden, proj: (logits, hidden),
    "reversed": lambda logits, hidden, proj: (hidden, logits),
    "list": lambda logits, hidden, proj: [[hidden, None], [logits.softmax(-1), logits]],
    "attention": lambda logits, hidden, proj: (logits, hidden.softmax(-1) * hidden.mean()),
}


class WithOutput(Net):
    def forward(self, x):
        hidden = self.body(x)
        return self.output(self.head(hidden.relu()), hidden, self.proj(hidden))


@pytest.mark.parametrize("output", OUTPUTS.values(), ids=OUTPUTS)
@pytest.mark.parametrize("train", [True, False], ids=["train", "eval"])
@pytest.mark.parametrize("inside", [False, True], ids=["alone", "inside"])
def test_logits_beside_hidden_states(output, train, inside):
    model = WithOutput(output=output).train(train)
    assert final_linear(model) == ("head", model.head)
    if inside:
        outer = Outer(model)
        assert final_linear(outer) == ("net.head", model.head)
        assert replace_final_linear(outer, 7).net.head.out_features == 7


class Outer(nn.Module):
    """A model that passes everything on to another one, like those of peft."""

    def __init__(self, net):
        super().__init__()
        self.net = net

    def forward(self, *args, **kwargs):
        return self.net(*args, **kwargs)


@pytest.mark.parametrize(
    "output",
    [
        lambda logits, hidden, proj: {"logits": logits, "aux_logits": proj},
        lambda logits, hidden, proj: {"out": logits, "aux": proj},
        lambda logits, hidden, proj: (logits, proj),
        lambda logits, hidden, proj: torch.cat([logits, proj], -1),
        lambda logits, hidden, proj: logits.sum(-1, keepdim=True) * proj,
    ],
)
def test_two_heads_side_by_side(output):
    model = WithOutput(output=output)
    message = follow_advice(model)
    assert "got 2 layers that may lead to its output side by side ('head', 'proj')" in message
    assert "aux_logits=False" not in message
    assert model.head.out_features == 7


class LoRA(nn.Module):
    def __init__(self, base, rank=2, first="base"):
        super().__init__()
        layers = {
            "base": base,
            "lora_A": nn.ModuleDict({"default": nn.Linear(base.in_features, rank, bias=False)}),
            "lora_B": nn.ModuleDict({"default": nn.Linear(rank, base.out_features, bias=False)}),
        }
        for name in sorted(layers, key=lambda name: name != first):
            self.add_module(name, layers[name])
        self.dropout = nn.Dropout(0.1)

    def forward(self, x):
        low = self.lora_A["default"](self.dropout(x))
        return self.base(x) + self.lora_B["default"](low) * 2


class SlimLoRA(nn.Module):
    """An adapter whose matrices are parameters."""

    def __init__(self, base, rank=2, first=None):
        super().__init__()
        self.base = base
        self.A = nn.Parameter(torch.randn(rank, base.in_features))
        self.B = nn.Parameter(torch.zeros(base.out_features, rank))

    def forward(self, x):
        return self.base(x) + x @ self.A.T @ self.B.T


@pytest.mark.parametrize("lora", [LoRA, SlimLoRA])
@pytest.mark.parametrize("n_out", [3, 8])
@pytest.mark.parametrize("first", ["base", "lora_B"])
def test_lora_like_wrappers(lora, n_out, first):
    model = Net(head=nn.Linear(8, n_out))
    model.body = lora(model.body, first=first)
    assert final_linear(model) == ("head", model.head)
    model.head = lora(model.head, first=first)
    message = follow_advice(model)
    assert f"replace the whole 'head' ({lora.__name__}), as in model.head =" in message
    assert type(model.head) is nn.Linear
    assert model(torch.zeros(2, 4)).shape == (2, 7)


class Distilled(nn.Module):
    """A head of two classifiers whose outputs are averaged, like LeViT's."""

    def __init__(self):
        super().__init__()
        self.a = nn.Sequential(nn.BatchNorm1d(8), nn.Linear(8, 3))
        self.b = nn.Sequential(nn.BatchNorm1d(8), nn.Linear(8, 3))

    def forward(self, x):
        if self.training:
            return self.a(x), self.b(x)
        return (self.a(x) + self.b(x)) / 2


def test_distilled_heads_are_replaced_as_a_whole():
    model = Net(head=Distilled())
    assert "side by side ('head.a.1', 'head.b.1'); replace the whole" in follow_advice(model)
    assert model(torch.zeros(2, 4)).shape == (2, 7)


class TwoBranches(Net):
    def forward(self, a, b):
        return self.head(self.hidden(a)) + self.head(self.proj(self.hidden(b)))


class TwoInputs(Net):
    def forward(self, a, b):
        return self.head(torch.cat([self.body(a)[:, :4], self.body(b)[:, 4:]], 1))


class DictInput(Net):
    def forward(self, batch):
        return super().forward(batch["x"] + batch["extra"].sum())


class ByName(Net):
    def forward(self, x=None, mask=None, labels=None, return_dict=None):
        if x is None:
            raise ValueError("You have to specify x")
        logits = self.head(self.hidden(x if mask is None else x * mask))
        loss = None if labels is None else F.cross_entropy(logits, labels)
        return {"loss": loss, "logits": logits} if return_dict is not False else (logits,)


class NeedsSecond(Net):
    def forward(self, x, y=None):
        return self.head(self.hidden(x * (2 * y)))


class ListInput(Net):
    def forward(self, xs: list):
        first, second = xs
        return super().forward(first + second)


@pytest.mark.parametrize(
    "kind", [TwoBranches, TwoInputs, DictInput, ByName, NeedsSecond, ListInput]
)
def test_forwards_that_take_other_than_one_tensor(kind):
    model = kind()
    assert final_linear(model) == ("head", model.head)
    outer = Outer(model)
    assert final_linear(outer) == ("net.head", model.head)


class Direct(Net):
    """A head whose weights are used without calling it."""

    def forward(self, x):
        hidden = self.hidden(x).float()
        return F.linear(hidden, self.head.weight.float(), bias=self.head.bias.float())


def test_a_layer_whose_weights_are_used_directly():
    model = Direct().half()
    assert final_linear(model) == ("head", model.head)


class Tied(nn.Module):
    def __init__(self, call):
        super().__init__()
        self.embed = nn.Embedding(10, 4)
        self.body = nn.Linear(4, 4)
        self.call = call

    def forward(self, x):
        return self.call(self, self.body(self.embed(x)))


@pytest.mark.parametrize(
    "call",
    [
        lambda m, h: F.linear(h, m.embed.weight),
        lambda m, h: h @ m.embed.weight.T,
        lambda m, h: torch.einsum("bnd,cd->bnc", h, m.embed.weight),
        lambda m, h: F.normalize(h, dim=-1).matmul(F.normalize(m.embed.weight, dim=-1).t()),
    ],
)
def test_tied_weights_without_a_layer(call):
    with pytest.raises(ValueError, match=r"comes from 'embed.weight' \(a weight that no layer"):
        final_linear(Tied(call))


def test_a_tied_layer():
    model = Tied(lambda m, h: m.out(h))
    model.out = nn.Linear(4, 10, bias=False)
    model.out.weight = model.embed.weight
    assert final_linear(model) == ("out", model.out)


@pytest.mark.parametrize("registered", [True, False], ids=["buffer", "attribute"])
def test_a_fixed_classifier(registered):
    """A classifier that is not trained, such as the texts of a zero-shot model."""
    model = Net()
    texts = torch.randn(3, 8)
    if registered:
        model.register_buffer("texts", texts)
    else:
        model.texts = texts
    model.scale = nn.Parameter(torch.ones(()))
    model.forward = MethodType(lambda self, x: self.scale * self.hidden(x) @ self.texts.T, model)
    source = r"'texts' \(a weight that no layer holds\)" if registered else "a fixed tensor"
    with pytest.raises(ValueError, match=f"got an output that comes from {source}"):
        final_linear(model)


class Residual(nn.Module):
    def __init__(self, depth):
        super().__init__()
        self.stem = nn.Linear(4, 8)
        self.blocks = nn.ModuleList(nn.Linear(8, 8) for _ in range(depth))

    def forward(self, x):
        x = self.stem(x)
        for block in self.blocks:
            x = x + block(x.relu())
        return x


@pytest.mark.parametrize("depth", [1, 3, 6])
def test_a_sum_of_layers_is_told_from_heads_side_by_side(depth):
    model = Residual(depth)
    message = rf"got a sum of {depth + 1} layers that come one after the other.*nn.Sequential"
    with pytest.raises(ValueError, match=message):
        final_linear(model)
    on_top = nn.Sequential(model, nn.Linear(8, 3))
    assert final_linear(on_top) == ("1", on_top[1])


class Counting(Net):
    """A model that needs real numbers."""

    def forward(self, x):
        for _ in range(int(x.sum())):
            x = x + 1
        return super().forward(x)


def test_a_part_that_cannot_be_followed_does_not_hide_the_rest():
    model = nn.Sequential(nn.Sequential(nn.Sequential(Counting(), nn.ReLU()), nn.Linear(3, 5)))
    assert final_linear(model) == ("0.1", model[0][1])
    in_the_middle = nn.Sequential(nn.Sequential(nn.Linear(4, 4), Counting()), OptionalFeatures())
    in_the_middle[1].body = nn.Linear(3, 8)
    assert final_linear(in_the_middle) == ("1.head", in_the_middle[1].head)


def test_a_part_that_cannot_be_followed_may_know_its_classifier():
    part = Counting(get_classifier=None)
    part.get_classifier = lambda: part.head
    model = nn.Sequential(nn.Linear(4, 4), part, nn.BatchNorm1d(3))
    assert final_linear(model) == ("1.head", part.head)


def test_the_list_is_named_where_forward_cannot_be_followed():
    with pytest.raises(ValueError, match="as far as the list of its layers tells") as e:
        final_linear(Counting())
    assert "aux_logits" not in str(e.value)


def test_wrappers_around_a_model_and_inside_it():
    net = OptionalFeatures()
    compiled = torch.compile(net, backend="eager")
    parallel = nn.DataParallel(net)
    assert final_linear(compiled) == ("_orig_mod.head", net.head)
    assert final_linear(parallel) == ("module.head", net.head)
    for wrapped, name in ((compiled, "0._orig_mod.head"), (parallel, "0.module.head")):
        model = nn.Sequential(wrapped, nn.Softmax(1))
        assert final_linear(model) == (name, net.head)
        assert model.get_submodule(name) is net.head
        replace_final_linear(model, 7)
        assert net.head.out_features == 7
    net.compile(backend="eager")
    assert final_linear(net) == ("head", net.head)
    assert net._compiled_call_impl is not None


@pytest.mark.filterwarnings("ignore:.*torch.jit.*:FutureWarning")
@pytest.mark.filterwarnings("ignore:.*torch.jit.*:DeprecationWarning")
def test_torchscript():
    for compiled in (
        torch.jit.script(nn.Sequential(nn.Linear(4, 3))),
        torch.jit.trace(Net(), torch.zeros(2, 4)),
    ):
        with pytest.raises(ValueError, match="got one compiled by TorchScript .*replace the layer"):
            final_linear(compiled)
        on_top = nn.Sequential(compiled, nn.Linear(3, 5))
        assert final_linear(on_top) == ("1", on_top[1])
        inside = nn.Sequential(nn.Linear(4, 4), compiled)
        with pytest.raises(ValueError, match="got an output that comes from '1'"):
            final_linear(inside)


def test_fx_and_export():
    net = Net().eval()
    traced = torch.fx.symbolic_trace(net)
    assert final_linear(traced) == ("head", net.head)
    exported = torch.export.export(net, (torch.zeros(2, 4),)).module()
    with pytest.raises(ValueError, match="expected GraphModule to end in an nn.Linear"):
        final_linear(exported)


class Changing(Net):
    """A model whose `forward` changes all that it can."""

    def __init__(self):
        super().__init__()
        self.norm = nn.BatchNorm1d(8)
        self.register_buffer("count", torch.zeros(1))
        self.steps = torch.zeros(1)
        self.features = None
        self.history = []
        self.last = deque(maxlen=2)
        self.nested = {"all": [[]]}
        self.plain = self.run
        self.bound = partial(self.run, times=1)

    def run(self, x, times=1):
        self.features = x
        self.history.append(x)
        self.last.append(x)
        self.nested["all"][0].append(x)
        self.count += times
        self.steps += 1
        self.train()
        return self.norm(self.hidden(x))

    def forward(self, x):
        return self.head(self.plain(x) + self.bound(x))


def snapshot(model):
    tensors = {**model.state_dict(), "steps": model.steps}
    return (
        {name: value.clone() for name, value in tensors.items()},
        [m.training for m in model.modules()],
        [p.requires_grad for p in model.parameters()],
        [p.grad for p in model.parameters()],
        (model.features, list(model.history), list(model.last), repr(model.nested)),
        [list(m._forward_hooks) for m in model.modules()],
        [vars(m).keys() for m in model.modules()],
    )


@pytest.mark.parametrize("patched", [False, True], ids=["", "patched forward"])
@pytest.mark.parametrize("train", [True, False], ids=["train", "eval"])
def test_looking_for_the_layer_changes_nothing(patched, train):
    model = Changing().train(train)
    model.norm.eval()
    model.body.weight.requires_grad_(False)
    calls = []
    model.head.register_forward_hook(lambda *args: calls.append(args))
    if patched:
        model.forward = MethodType(Changing.forward, model)
    before = snapshot(model)
    torch.manual_seed(7)
    expected = torch.rand(1)
    torch.manual_seed(7)
    assert final_linear(model) == ("head", model.head)
    assert torch.rand(1) == expected
    after = snapshot(model)
    assert before[1:] == after[1:]
    assert before[0].keys() == after[0].keys()
    assert all(torch.equal(value, after[0][name]) for name, value in before[0].items())
    assert calls == []
