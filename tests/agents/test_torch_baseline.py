"""The PyTorch network of the benchmarks, validated against CORL's dt.py."""

import numpy as np
import pytest
from ml_collections import ConfigDict
from test_corl_parity import FILES, Case

from dt_jax.agents.dt import DecisionTransformerAgent

torch = pytest.importorskip("torch")
from benchmarks import torch_dt  # noqa: E402


@pytest.fixture(params=[path for path in FILES if "f64" in path.stem], ids=str)
def case(request):
    return Case(request.param, np.float64)


@pytest.fixture
def model(case):
    config = ConfigDict(case.config)
    model = torch_dt.DecisionTransformer(config, config.state_dim, config.action_dim)
    init = case.under("init/").items()
    model.double().load_state_dict({k: torch.tensor(array) for k, array in init})
    return model


def tensors(case, step):
    """Return the batch of a step as `torch_dt.loss` takes it."""
    batch = case.cast(case.batch(step))._asdict()
    return [torch.tensor(batch[name]) for name in DecisionTransformerAgent.batch_fields]


def test_outputs_and_gradients_are_those_of_corl(case, model):
    batch = tensors(case, 0)
    outputs = model(*batch[:4]).detach()
    case.assert_close(
        outputs, case.numbers["forward/actions_unmasked"], case.forward_atol
    )
    torch_dt.loss(model, batch).backward()
    for name, parameter in model.named_parameters():
        case.assert_close(
            parameter.grad, case.numbers[f"grad0/{name}"], case.forward_atol
        )


def test_training_is_that_of_corl(case, model):
    update = torch_dt.make_update(model, ConfigDict(case.config))
    losses = [
        update(tensors(case, step)).item() for step in range(case.config["steps"])
    ]
    case.assert_close(losses, case.numbers["train/loss"], case.forward_atol)
    for name, parameter in model.named_parameters():
        case.assert_close(
            parameter.detach(), case.numbers[f"final/{name}"], case.forward_atol
        )
