"""A Decision Transformer in PyTorch as a baseline: CORL's network and training step.

Written by us in the usual PyTorch style (nn.MultiheadAttention, AdamW);
tests/agents/test_torch_baseline.py compares outputs, gradients and a training run with
numbers recorded from CORL's dt.py. Parameters have CORL's names.
"""

from collections.abc import Callable

import torch
from ml_collections import ConfigDict
from torch import Tensor, nn
from torch.nn import functional


class Block(nn.Module):
    """Pre-LN attention and MLP, each added to its normalised input."""

    def __init__(self, config: ConfigDict):
        super().__init__()
        d = config.embedding_dim
        self.norm1, self.norm2 = nn.LayerNorm(d), nn.LayerNorm(d)
        self.attention = nn.MultiheadAttention(
            d, config.num_heads, config.attention_dropout, batch_first=True
        )
        self.dropout = nn.Dropout(config.residual_dropout)
        self.mlp = nn.Sequential(
            nn.Linear(d, 4 * d),
            nn.GELU(),
            nn.Linear(4 * d, d),
            nn.Dropout(config.residual_dropout),
        )

    def forward(self, x: Tensor, hidden: Tensor) -> Tensor:
        """Map tokens [B, L, D]; `hidden` [L, L] is True where attention is masked."""
        y = self.norm1(x)
        mixed, _ = self.attention(y, y, y, attn_mask=hidden, need_weights=False)
        x = x + self.dropout(mixed)
        return x + self.mlp(self.norm2(x))


class DecisionTransformer(nn.Module):
    """CORL's network for observations of size S and actions of size A."""

    def __init__(self, config: ConfigDict, observation_size: int, action_size: int):
        super().__init__()
        d = config.embedding_dim
        self.emb_norm, self.out_norm = nn.LayerNorm(d), nn.LayerNorm(d)
        self.emb_drop = nn.Dropout(config.embedding_dropout)
        self.timestep_emb = nn.Embedding(config.episode_len + config.seq_len, d)
        self.state_emb = nn.Linear(observation_size, d)
        self.action_emb = nn.Linear(action_size, d)
        self.return_emb = nn.Linear(1, d)
        self.blocks = nn.ModuleList(Block(config) for _ in range(config.num_layers))
        self.action_head = nn.Sequential(nn.Linear(d, action_size), nn.Tanh())
        self.max_action = config.max_action
        for module in self.modules():
            if isinstance(module, nn.Linear | nn.Embedding):
                nn.init.normal_(module.weight, std=0.02)
            if isinstance(module, nn.Linear):
                nn.init.zeros_(module.bias)
        length = 3 * config.seq_len
        hidden = ~torch.ones(length, length).tril().to(bool)
        self.register_buffer("hidden", hidden, persistent=False)

    def forward(
        self, states: Tensor, actions: Tensor, returns_to_go: Tensor, timesteps: Tensor
    ) -> Tensor:
        """Return predicted actions [B, T, A]; states are [B, T, S]."""
        b, t = timesteps.shape
        time = self.timestep_emb(timesteps)
        tokens = [
            self.return_emb(returns_to_go[..., None]) + time,
            self.state_emb(states) + time,
            self.action_emb(actions) + time,
        ]
        x = torch.stack(tokens, dim=2).reshape(b, 3 * t, -1)
        x = self.emb_drop(self.emb_norm(x))
        for block in self.blocks:
            x = block(x, self.hidden[: 3 * t, : 3 * t])
        return self.action_head(self.out_norm(x)[:, 1::3]) * self.max_action


def loss(model: nn.Module, batch: tuple[Tensor, ...]) -> Tensor:
    """Return the mean squared error of a batch; padding counts in the mean."""
    *inputs, mask = batch
    error = functional.mse_loss(model(*inputs), inputs[1], reduction="none")
    return (error * mask[..., None]).mean()


def make_update(
    model: nn.Module, config: ConfigDict
) -> Callable[[tuple[Tensor, ...]], Tensor]:
    """Return the training step, which maps the tensors of a Batch to its loss."""
    optimizer = torch.optim.AdamW(
        model.parameters(),
        lr=config.learning_rate,
        betas=config.betas,
        weight_decay=config.weight_decay,
    )
    scheduler = torch.optim.lr_scheduler.LambdaLR(
        optimizer, lambda step: min((step + 1) / config.warmup_steps, 1)
    )

    def update(batch: tuple[Tensor, ...]) -> Tensor:
        error = loss(model, batch)
        optimizer.zero_grad()
        error.backward()
        nn.utils.clip_grad_norm_(model.parameters(), config.clip_grad)
        optimizer.step()
        scheduler.step()
        return error.detach()

    return update
