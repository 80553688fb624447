"""Replenishment without any shortcut: every scale of every tile is built, patch by patch, then the best is taken.

What the selector has to equal, and what benchmarks compare its speed with. It does frame budgets alone.
"""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor

import numpy as np
import torch

from autogaze.frames import Frames
from autogaze.gaze import Gaze
from autogaze.grid import FrameLayout
from autogaze.selectors.base import Budget
from autogaze.selectors.cells import Cells, Tiling, resize
from autogaze.selectors.distortion import atom_sums, loss, picture_error, psnr_db, squared_atom_sums
from autogaze.selectors.greedy import patch_sums

# Shape letters: n tiles, S pixels a side of a tile, K scales, A atoms of a tile, P patches of a tile.


def plain_scale_image(tiles: np.ndarray, cells: Cells, scale: int) -> np.ndarray:
    """(n, S, S, 3) tiles as one scale shows them: each patch is cut out and brought up to its cell."""
    side, p, c = cells.grid.sides[scale], cells.grid.patch_px, cells.cell_px[scale]
    small = resize(tiles, cells.grid.scales_px[scale], cells.grid.scales_px[scale])[:, : side * p, : side * p]
    patches = small.reshape(-1, side, p, side, p, 3).swapaxes(2, 3).reshape(-1, p, p, 3)
    image = np.zeros_like(tiles)
    shown = resize(patches, c, c).reshape(-1, side, side, c, c, 3).swapaxes(2, 3)
    image[:, : side * c, : side * c] = shown.reshape(len(tiles), side * c, side * c, 3)
    return image


def canvas_error(tiles: np.ndarray, half_levels: np.ndarray) -> np.ndarray:
    """(n, S, S, 3) |canvas − frame| of 8-bit tiles and a canvas in half levels."""
    return np.abs(half_levels - tiles * np.int16(2)).astype(np.uint16)


class PlainReplenish:
    """One video on its way through replenishment."""

    def __init__(self, layout: FrameLayout, budget: Budget) -> None:
        self.layout, self.budget, self.tiling = layout, budget, Tiling(layout)
        self.half_levels = np.full(self.tiling.tiles_shape, 255, np.int16)
        self.tiling.clear_padding(self.half_levels)
        self.number = 0

    def step(self, frames: Frames) -> Gaze:
        """The gaze of the next frames."""
        index, count, losses = [], [], []
        for rgb in frames.rgb:
            taken, absolute = self._frame(rgb)
            index += taken
            count.append(len(taken))
            losses += [loss(value, self.tiling.num_values) for value in absolute]
        return Gaze(
            index=np.array(index, np.int64),
            count=np.array(count),
            layout=self.layout,
            predicted_loss=np.array(losses, np.float32),
            time_seconds=frames.time_seconds,
        )

    def _frame(self, rgb: np.ndarray) -> tuple[list[int], list[float]]:
        tiles = self.tiling.split(rgb)
        canvas, squared, scales, scales_squared, images = self._errors(tiles, self._edges_repeated(rgb))
        search = _Search(canvas, squared, scales, scales_squared, self.tiling.cells)
        most = self.budget.max_patches(self.layout.num_patches, self.number % 16)
        self.number += 1
        taken: list[int] = []
        absolute: list[float] = []
        while len(taken) < most and not (taken and self._good_enough(search)):
            gains = search.gains.reshape(-1)
            best = int(gains.argmax())
            if gains[best] <= 0:
                break
            search.take(best)
            taken.append(best)
            absolute.append(search.absolute)
        self._paste(taken, images)
        return taken, absolute

    def _edges_repeated(self, rgb: np.ndarray) -> np.ndarray:
        """(n, S, S, 3) the tiles of a frame that goes on past its edge."""
        tiling, S = self.tiling, self.tiling.cells.tile_px
        rgb = resize(rgb[None], tiling.height_px, tiling.width_px)[0]
        rows, columns = self.layout.tile_rows, self.layout.tile_columns
        past = ((0, rows * S - len(rgb)), (0, columns * S - rgb.shape[1]), (0, 0))
        whole = np.pad(rgb, past, mode="edge").reshape(rows, S, columns, S, 3)
        return np.ascontiguousarray(whole.swapaxes(1, 2)).reshape(tiling.tiles_shape)

    def _errors(self, tiles: np.ndarray, extended: np.ndarray) -> tuple[np.ndarray, ...]:
        cells, n = self.tiling.cells, len(tiles)
        columns = self.layout.tile_columns
        canvas, squared = np.zeros((2, n, cells.num_atoms))
        scales, scales_squared = np.zeros((2, n, cells.grid.num_scales, cells.num_atoms))
        images = np.empty((cells.grid.num_scales, *tiles.shape), np.uint8)

        def work(row: slice) -> None:
            error = canvas_error(tiles[row], self.half_levels[row])
            canvas[row] = atom_sums(error, cells)
            if self.budget.psnr_db is not None:
                squared[row] = squared_atom_sums(error, cells)
            for k in range(cells.grid.num_scales):
                images[k, row] = tiles[row] if cells.shows_itself(k) else plain_scale_image(extended[row], cells, k)
                self.tiling.clear_padding(images[k, row], np.arange(n)[row])
                error = picture_error(tiles[row], images[k, row])
                scales[row, k] = 2 * atom_sums(error, cells)
                if self.budget.psnr_db is not None:
                    scales_squared[row, k] = 4 * squared_atom_sums(error, cells)

        with ThreadPoolExecutor(torch.get_num_threads()) as threads:
            list(threads.map(work, [slice(start, start + columns) for start in range(0, n, columns)]))
        return canvas, squared, scales, scales_squared, images

    def _good_enough(self, search: _Search) -> bool:
        values = self.tiling.num_values
        if self.budget.threshold is not None and loss(search.absolute, values) <= self.budget.threshold:
            return True
        return self.budget.psnr_db is not None and psnr_db(search.squared, values) >= self.budget.psnr_db

    def _paste(self, taken: list[int], images: np.ndarray) -> None:
        cells = self.tiling.cells
        for tile, patch in sorted((divmod(index, cells.grid.num_patches) for index in taken), key=lambda one: one[1]):
            place = (tile, *cells.box_of_patch_px[patch])
            self.half_levels[place] = images[(cells.scale_of_patch[patch], *place)] * np.int16(2)


class _Search:
    def __init__(
        self,
        canvas: np.ndarray,
        squared: np.ndarray,
        scales: np.ndarray,
        scales_squared: np.ndarray,
        cells: Cells,
    ) -> None:
        self.cells, self.scales, self.scales_squared = cells, scales, scales_squared
        self.removed = canvas[:, None] - scales
        self.gains = patch_sums(self.removed, cells)
        self.finest = np.full(canvas.shape, -1)
        self.squared_of_atom = squared
        self.absolute, self.squared = float(canvas.sum()), float(squared.sum())

    def take(self, index: int) -> None:
        """Paste one patch."""
        cells, K = self.cells, self.cells.grid.num_scales
        tile, patch = divmod(index, cells.grid.num_patches)
        scale = cells.scale_of_patch[patch]
        atoms = cells.atoms_of_patch[patch]
        atoms = atoms[self.finest[tile, atoms] <= scale]
        before = self.removed[tile][:, atoms]
        after = np.zeros((K, len(atoms)))
        after[scale + 1 :] = self.scales[tile, scale, atoms] - self.scales[tile][scale + 1 :, atoms]
        self.removed[tile][:, atoms] = after
        self.finest[tile, atoms] = scale
        touched = cells.patch_of_atom[:, atoms].reshape(-1)
        change = np.bincount(touched, (after - before).reshape(-1), cells.grid.num_patches + 1)
        self.gains[tile] += change[:-1]
        self.absolute -= before[scale].sum()
        squared = self.scales_squared[tile, scale, atoms]
        self.squared += (squared - self.squared_of_atom[tile, atoms]).sum()
        self.squared_of_atom[tile, atoms] = squared
