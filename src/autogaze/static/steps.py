"""The two steps of a frame: read it and choose a first group; read a group and choose the next.

A step is a fixed sequence of device operations for its number of rows and of cache places: it can be recorded once
and replayed. Rows of clips that have ended take part without effect. Shape letters: B clips of a desk, A rows of a
step, P visual tokens, K gazes of a group, Q new tokens of a row, L cache places that are looked at, V vocabulary,
C channels, H query heads, G key/value heads, D channels of a head, E = D / 2.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from autogaze.engine import after_attention, norm, turn
from autogaze.static.choose import choose
from autogaze.static.desk import Desk
from autogaze.tiled_attention import QUERY_SCALE


def frame_step(desk: Desk, *, longest: int) -> None:
    """Read what the frame before left unread and the visual tokens, and choose the first group of every clip.

    ``longest`` is L: no clip has more tokens after this.
    """
    K, P = desk.group_size, desk.visual_BPC.shape[1]
    unread_BK, fresh_B1, length_B1, left_B = desk.orders.split_with_sizes([K, 1, 1, 1], dim=1)
    is_gaze_Q = desk.slot < K
    # Gazes stand in front: a row with fewer than K of them has empty slots before its visual tokens.
    place_BQ = length_B1 + torch.where(is_gaze_Q, desk.slot, desk.slot - K + fresh_B1)
    real_BQ = ~is_gaze_Q | (desk.slot < fresh_B1)
    x_BQC = torch.cat([F.embedding(unread_BK, desk.weights.embed_VC), desk.visual_BPC], dim=1)
    desk.hidden_BC.copy_(_feed(desk, None, x_BQC, place_BQ, place_BQ, real_BQ, longest=longest))
    desk.length_B.copy_((length_B1 + fresh_B1).squeeze(1)).add_(P)
    desk.anchor_B.copy_(desk.length_B)
    desk.left_B.copy_(left_B.squeeze(1))
    desk.taken_BV.zero_()
    desk.taken_BV[:, -1:].fill_(True)  # the end token is never chosen
    desk.ended_B.zero_()
    desk.step.zero_()
    desk.slots.zero_()
    _choose(desk, None)


def group_step(desk: Desk, *, rows: int, longest: int) -> None:
    """Read the group chosen last of every clip whose frame goes on, and choose the next.

    ``rows`` is A: no more clips go on. ``longest`` is L: none has more tokens after this.
    """
    K = desk.group_size
    rows_A = None if rows == desk.clips else torch.argsort(desk.ended_B, stable=True)[:rows]
    length_A = _of(desk.length_B, rows_A)
    on_A = ~_of(desk.ended_B, rows_A)
    slot_K = desk.slot[:K]
    place_AK = length_A[:, None] + slot_K
    position_AK = (_of(desk.anchor_B, rows_A) - K)[:, None] + slot_K if desk.reference else place_AK
    x_AKC = F.embedding(_of(desk.group_BK, rows_A), desk.weights.embed_VC)
    hidden_AC = _feed(desk, rows_A, x_AKC, place_AK, position_AK, on_A[:, None].expand(-1, K), longest=longest)
    _put(desk.hidden_BC, rows_A, hidden_AC)
    _put(desk.length_B, rows_A, length_A + on_A * K)
    _choose(desk, rows_A)


def _choose(desk: Desk, rows_A: Tensor | None) -> None:
    """Choose a group for every row that goes on, and write down what was chosen."""
    K, V = desk.group_size, desk.taken_BV.shape[1]
    hidden_AC, taken_AV, left_A = (_of(buffer, rows_A) for buffer in (desk.hidden_BC, desk.taken_BV, desk.left_B))
    on_A = ~_of(desk.ended_B, rows_A)
    hidden_AC = hidden_AC.float()
    loss_AK = F.linear(hidden_AC, desk.weights.loss_head_KC)
    logits_AKV = F.linear(hidden_AC, desk.weights.lm_head).view(-1, K, V)
    choice = choose(logits_AKV, loss_AK, taken_AV, left_A, first=desk.step == 0, level=desk.level)
    size_A = choice.size_A * on_A
    written = [
        choice.index_AK.float(),
        choice.kept_AK.float(),
        choice.probability_AK,
        # The last gaze's is what the next read-out says before its first.
        torch.cat([loss_AK[:, 1:], torch.full_like(loss_AK[:, :1], torch.nan)], dim=1),
        loss_AK[:, :1],
        size_A[:, None].float(),
    ]
    everyone_A = desk.every_B if rows_A is None else rows_A
    desk.slots[everyone_A, desk.step.expand(len(everyone_A))] = torch.cat(written, dim=1)
    # The end token stands for what was not chosen: it is taken anyway.
    chosen_AK = desk.slot[:K] < size_A[:, None]
    _put(desk.taken_BV, rows_A, taken_AV.scatter(1, torch.where(chosen_AK, choice.index_AK, V - 1), True))
    _put(desk.left_B, rows_A, left_A - size_A)
    _put(desk.group_BK, rows_A, choice.index_AK)
    _put(desk.ended_B, rows_A, choice.ended_A | ~on_A)
    desk.step.add_(1)
    desk.going.copy_((~desk.ended_B).sum(0, keepdim=True))


def _feed(
    desk: Desk,
    rows_A: Tensor | None,
    x_AQC: Tensor,
    place_AQ: Tensor,
    position_AQ: Tensor,
    real_AQ: Tensor,
    *,
    longest: int,
) -> Tensor:
    """Append the real tokens to the cache; the decoder's normed output (A, C) at the last token of each row."""
    A, Q, C = x_AQC.shape
    # Where nothing real stands, the position may lie past the end.
    turn_N1E = desk.turn_LE[torch.where(real_AQ, position_AQ, 0).flatten()][:, None]
    row_AQ = (desk.every_B if rows_A is None else rows_A)[:, None].expand(A, Q)
    kept_at_AQ = torch.where(real_AQ, place_AQ, desk.capacity)
    hidden_A1QL = (desk.place_L[:longest] > place_AQ[..., None])[:, None]
    # Added to the scores; each layer would make it of a mask by itself.
    bias_A1QL = torch.zeros_like(hidden_A1QL, dtype=x_AQC.dtype).masked_fill_(hidden_A1QL, -torch.inf)
    x_NC = x_AQC.flatten(0, 1)
    for keys, values, weights in zip(desk.keys[:-1], desk.values[:-1], desk.weights.layers[:-1], strict=True):
        G, D = keys.shape[1], keys.shape[3]
        qkv = F.linear(norm(x_NC, desk.norm_eps), weights.qkv).view(A * Q, -1, D)
        qk = turn(qkv[:, :-G], turn_N1E).view(A, Q, -1, D)
        keys[row_AQ, :, kept_at_AQ] = qk[:, :, -G:]
        values[row_AQ, :, kept_at_AQ] = qkv[:, -G:].view(A, Q, G, D)
        seen = (_of(keys[:, :, :longest], rows_A), _of(values[:, :, :longest], rows_A))
        x_NC = after_attention(x_NC, _attend(qk[:, :, :-G], *seen, bias_A1QL), weights, desk.norm_eps)
    # Nobody reads the last block's output but the heads, and they only at each row's last token.
    keys, values, weights = desk.keys[-1], desk.values[-1], desk.weights.layers[-1]
    G, D = keys.shape[1], keys.shape[3]
    normed_NC = norm(x_NC, desk.norm_eps)
    q_weight, kv_weight = weights.qkv[: -2 * G * D], weights.qkv[-2 * G * D :]
    kv = F.linear(normed_NC, kv_weight).view(A * Q, -1, D)
    keys[row_AQ, :, kept_at_AQ] = turn(kv[:, :G], turn_N1E).view(A, Q, G, D)
    values[row_AQ, :, kept_at_AQ] = kv[:, G:].view(A, Q, G, D)
    seen = (_of(keys[:, :, :longest], rows_A), _of(values[:, :, :longest], rows_A))
    last_AC = normed_NC.view(A, Q, C)[:, -1]
    q = turn(F.linear(last_AC, q_weight).view(A, -1, D), turn_N1E.view(A, Q, 1, -1)[:, -1])[:, None]
    attended = _attend(q, *seen, bias_A1QL[:, :, -1:])
    x_AC = after_attention(x_NC.view(A, Q, C)[:, -1], attended, weights, desk.norm_eps)
    return norm(x_AC, desk.norm_eps) * desk.weights.norm_C


def _attend(q_AQHD: Tensor, k_AGLD: Tensor, v_AGLD: Tensor, bias_A1QL: Tensor) -> Tensor:
    """(A · Q, H, D) attention, with a number added to every score."""
    out_AHQD = F.scaled_dot_product_attention(
        q_AQHD.transpose(1, 2),
        k_AGLD,
        v_AGLD,
        bias_A1QL,
        scale=1 / QUERY_SCALE,
        enable_gqa=q_AQHD.shape[2] != k_AGLD.shape[1],
    )
    return out_AHQD.transpose(1, 2).flatten(0, 1)


def _of(buffer: Tensor, rows_A: Tensor | None) -> Tensor:
    """The buffer's rows; all of them without a copy."""
    return buffer if rows_A is None else buffer[rows_A]


def _put(buffer: Tensor, rows_A: Tensor | None, new: Tensor) -> None:
    """Overwrite rows of a buffer."""
    if rows_A is None:
        buffer.copy_(new)
    else:
        buffer[rows_A] = new
