"""Read, predict and write, all at once.

Three threads: one decodes row groups and fills matrices (or takes the columns as they are, if the
model does), the caller's predicts, one encodes and writes. They are joined by short channels, so
the slowest of the three sets the pace and the others wait, and a few matrices go round and round.
Whatever fails first ends all three, and none outlives `run`. A small shard is not worth the
threads: the caller's does all of it, to the same bytes.

    read and convert ──(filled matrices)──> predict ──(predictions, carried columns)──> write
           └<────────────(free matrices)───────┘
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from itertools import repeat
from pathlib import Path
from threading import Thread
from typing import TYPE_CHECKING, Any

from augury import clock
from augury.data import output
from augury.data.batches import (
    FileSlice,
    batch_rows,
    carried,
    columns_of,
    fill,
    read_batches,
)
from augury.data.policy import OnBadRow
from augury.data.screening import ORIGIN, RejectedRows, Screen, Sifted, in_order
from augury.data.unknown import UnknownCounter
from augury.errors import AuguryError, ContractError, InvalidError, LimitError
from augury.inference.channel import Channel, LeftError
from augury.inference.rejects import RejectCount, RejectPart, RowsFailedError, bisected, detail
from augury.models.columns import Columns
from augury.models.port import ColumnModel
from augury.models.signature import Task

if TYPE_CHECKING:
    import pyarrow as pa
    from numpy.typing import NDArray

    from augury.inference.plan import Plan
    from augury.models.port import Model
    from augury.models.signature import Signature
    from augury.settings import Settings

CHECK_S = 0.25  # between two calls of `check`
PREDICT_S = 0.2  # what one call of `predict` should take at most
_FIRST_ROWS = 4096
_ALONE_ROWS = _FIRST_ROWS  # most rows of a shard that needs no threads
_MATRICES = 3


@dataclass(frozen=True, kw_only=True)
class _Filled:
    """Rows of one file, ready to be predicted: the first of a matrix, and their carried columns.

    Attributes:
        columns: the rows instead, if the model takes columns; the matrix is empty then.
        sifted: the rows as they were read, if the model may reject some, and those that the job's
            policy has rejected already; None if no row of this plan can be rejected.
    """

    file: int
    matrix: NDArray[Any]
    columns: Columns | None
    num_rows: int
    carried: list[pa.Array]
    sifted: Sifted | None

    def rows(self, start: int, stop: int) -> NDArray[Any] | Columns:
        """Some of the rows, as the model takes them."""
        if self.columns is not None:
            return self.columns.rows(start, stop)
        return self.matrix[start:stop]


@dataclass(frozen=True, kw_only=True)
class _Scored:
    predictions: NDArray[Any]
    carried: list[pa.Array]
    rejected: RejectedRows | None


class Pipeline:
    """One shard being scored; to be run once.

    Args:
        plan: of the run.
        files: row groups to score, in order.
        model: the planned one, loaded.
        settings: for access to the inputs.
        num_threads: with which the model computes.
        on_progress: called with the number of rows predicted since the last call.
        check: called about every `CHECK_S`; what it raises ends the run.

    Attributes:
        rows_predicted: by file, in order.
        rows_rejected: the same.
        rejects: all of them, and the first by name.
    """

    def __init__(
        self,
        plan: Plan,
        files: Sequence[FileSlice],
        model: Model,
        settings: Settings,
        *,
        num_threads: int,
        on_progress: Callable[[int], None],
        check: Callable[[], None],
    ) -> None:
        self.rows_predicted = [0] * len(files)
        self.rows_rejected = [0] * len(files)
        self.rejects = RejectCount(plan.rows)
        self._plan = plan
        self._signature = plan.model.signature
        self._schema = output.decode_schema(plan.output_schema)
        self._files = files
        self._model = model
        self._settings = settings
        self._on_progress = on_progress
        self._takes_columns = isinstance(model, ColumnModel)
        self._check = _Throttled(check)
        self._pace = _Pace(num_threads)
        self._unknown = UnknownCounter()
        self._screen = _screen(plan)
        self._free: Channel[NDArray[Any]] = Channel(_MATRICES)
        self._filled: Channel[_Filled] = Channel(1)
        self._scored: Channel[_Scored] = Channel(2)
        self._num_written = 0

    @property
    def unknown_categories(self) -> dict[str, dict[str, int]]:
        """Counts of values that the model does not know, by column."""
        return self._unknown.counts()

    def run(self, path: Path, reject_part: RejectPart) -> int:
        """Scores all rows into a new local file.

        Args:
            path: does not exist yet.
            reject_part: gets the rejected rows.

        Returns:
            The number of rows written.

        Raises:
            Exception: the first error of any of the three; no thread is left then either.
        """
        if self._is_small():
            return self._run_alone(path, reject_part)
        threads = [
            Thread(target=self._reading, name="augury-read"),
            Thread(target=self._writing, args=(path, reject_part), name="augury-write"),
        ]
        try:
            for thread in threads:
                thread.start()
            self._predict_all()
            self._scored.close()
        finally:
            self._filled.leave()
            self._free.close(LeftError())
            self._scored.close(LeftError())
            for thread in threads:
                if thread.ident is not None:  # it was started
                    thread.join()
        self._scored.raise_if_left()
        return self._num_written

    def _is_small(self) -> bool:
        """True if threads would cost more than they save.

        Over a network never: then the caller has to look around while it waits for the rows.
        """
        num_rows = sum(file.num_rows for file in self._files)
        return num_rows <= _ALONE_ROWS and all(
            file.uri.startswith("file://") for file in self._files
        )

    def _run_alone(self, path: Path, reject_part: RejectPart) -> int:
        max_rows, matrix = self._make_matrix()
        with self._writer(path) as writer, reject_part:
            for filled in self._read(max_rows, repeat(matrix)):
                self._write(writer, reject_part, self._score(filled))
        return writer.num_rows

    # --- the reading thread

    def _reading(self) -> None:
        try:
            self._read_all()
            self._filled.close()
        except LeftError:
            pass  # the others ended; they know why
        except BaseException as error:
            self._filled.close(error)

    def _read_all(self) -> None:
        max_rows, matrix = self._make_matrix()
        for _ in range(_MATRICES):
            self._free.send(matrix.copy())
        for filled in self._read(max_rows, self._free.receive()):
            self._filled.send(filled)

    def _read(self, max_rows: int, free: Iterator[NDArray[Any]]) -> Iterator[_Filled]:
        """All rows in order, in matrices taken from `free`."""
        fields = list(self._schema)[: len(self._plan.columns)]
        origin = ORIGIN if self._plan.generation > 1 else ()
        for number, file in enumerate(self._files):
            for decoded in read_batches(
                file,
                self._signature,
                (*self._plan.columns, *origin),
                max_rows=max_rows,
                settings=self._settings,
            ):
                sifted = self._screen.sift(decoded, file.uri) if self._screen else None
                batch = sifted.batch if sifted else decoded.batch
                matrix, columns = next(free), None
                if self._takes_columns:
                    columns = columns_of(batch, decoded.binding, self._unknown)
                else:
                    fill(matrix[: batch.num_rows], batch, decoded.binding, self._unknown)
                yield _Filled(
                    file=number,
                    matrix=matrix,
                    columns=columns,
                    num_rows=batch.num_rows,
                    carried=carried(batch, fields),
                    sifted=sifted,
                )

    def _make_matrix(self) -> tuple[int, NDArray[Any]]:
        """An empty matrix, and the most rows that it takes."""
        import numpy as np

        dtype = np.dtype(self._signature.dtype)
        num_features = self._signature.num_features
        num_rows = max([file.num_rows for file in self._files], default=1)
        max_rows = min(num_rows, batch_rows(num_features, dtype.itemsize))
        return max_rows, np.empty((max_rows, 0 if self._takes_columns else num_features), dtype)

    # --- the calling thread

    def _predict_all(self) -> None:
        for filled in self._filled.receive(self._check):
            scored = self._score(filled)
            self._free.send(filled.matrix)
            self._scored.send(scored, self._check)

    def _score(self, filled: _Filled) -> _Scored:
        predictions, failures = self._predict(filled)
        columns = filled.carried
        rejected = filled.sifted.rejected if filled.sifted else None
        if failures:
            rejected = self._rejected(filled, failures, rejected)
            columns = _without(columns, failures, filled.num_rows)
        if rejected is not None:
            self.rows_rejected[filled.file] += rejected.batch.num_rows
            self.rejects.add(rejected.batch)
            self._on_progress(rejected.batch.num_rows - len(failures))
        self.rows_predicted[filled.file] += len(predictions)
        return _Scored(predictions=predictions, carried=columns, rejected=rejected)

    def _rejected(
        self, filled: _Filled, failures: dict[int, str], before: RejectedRows | None
    ) -> RejectedRows:
        assert filled.sifted is not None and self._screen is not None
        uri = self._files[filled.file].uri
        return in_order(before, self._screen.failed(filled.sifted, failures, uri))

    def _predict(self, filled: _Filled) -> tuple[NDArray[Any], dict[int, str]]:
        """The predictions of all rows but those on which the model fails alone; and these."""
        import numpy as np

        pieces: list[NDArray[Any]] = []
        failures: dict[int, str] = {}
        start = 0
        while start < filled.num_rows:
            stop = min(start + self._pace.rows, filled.num_rows)
            started = clock.monotonic_s()
            for first, piece in self._pieces(filled, start, stop):
                if isinstance(piece, RowsFailedError):
                    failures[first] = detail(piece)
                else:
                    pieces.append(piece)
            self._pace.took(stop - start, clock.monotonic_s() - started)
            self._on_progress(stop - start)
            self._check()
            start = stop
        if not pieces:
            pieces.append(np.empty(_expected_shape(self._signature, 0), np.float64))
        return pieces[0] if len(pieces) == 1 else np.concatenate(pieces), failures

    def _pieces(
        self, filled: _Filled, start: int, stop: int
    ) -> Iterator[tuple[int, NDArray[Any] | RowsFailedError]]:
        uri = self._files[filled.file].uri

        def predict(first: int, last: int) -> NDArray[Any]:
            return self._call(filled.rows(first, last), uri)

        if self._plan.rows.on_bad_row is OnBadRow.REJECT:
            return bisected(predict, start, stop)
        return iter([(start, predict(start, stop))])

    def _call(self, rows: NDArray[Any] | Columns, uri: str) -> NDArray[Any]:
        name = f"model {self._plan.model.name} ({self._model.backend})"
        try:
            predictions = self._model_on(rows)
        except ContractError as error:  # values that this model does not take
            raise RowsFailedError(f"{name} failed on rows of {uri}: {error}", uri=uri) from error
        except AuguryError:
            raise
        except MemoryError as error:
            raise LimitError(f"no memory left while {name} scored {uri}", uri=uri) from error
        except Exception as error:
            raise RowsFailedError(f"{name} failed on rows of {uri}: {error}", uri=uri) from error
        expected = _expected_shape(self._signature, len(rows))
        if predictions.shape != expected:
            raise InvalidError(
                f"{name} does not fit its signature: expected predictions of shape {expected}, "
                f"found {predictions.shape}"
            )
        return predictions

    def _model_on(self, rows: NDArray[Any] | Columns) -> NDArray[Any]:
        if isinstance(rows, Columns):
            assert isinstance(self._model, ColumnModel)
            return self._model.predict_columns(rows)
        return self._model.predict(rows)

    # --- the writing thread

    def _writing(self, path: Path, reject_part: RejectPart) -> None:
        try:
            self._num_written = self._write_all(path, reject_part)
        except LeftError:
            pass
        except BaseException as error:
            self._scored.leave(error)

    def _write_all(self, path: Path, reject_part: RejectPart) -> int:
        with self._writer(path) as writer, reject_part:
            for scored in self._scored.receive():
                self._write(writer, reject_part, scored)
        return writer.num_rows

    def _writer(self, path: Path) -> output.PartWriter:
        settings = self._plan.pins.writer
        return output.PartWriter(
            path,
            self._schema,
            codec=settings.codec,
            row_group_rows=settings.row_group_rows,
            data_page_version=settings.data_page_version,
            dictionary_columns=settings.dictionary_columns,
        )

    def _write(self, writer: output.PartWriter, reject_part: RejectPart, scored: _Scored) -> None:
        if scored.rejected is not None:
            reject_part.write(scored.rejected.batch)
        fields = list(self._schema)[len(self._plan.columns) :]
        columns = output.prediction_columns(scored.predictions, self._signature, fields)
        writer.write([*scored.carried, *columns])


def _screen(plan: Plan) -> Screen | None:
    """None if the job expects nothing and rejects nothing: then no row is looked at."""
    if not plan.rows.columns and not plan.rows.rejects:
        return None
    schema = output.decode_schema(plan.rows.reject_schema) if plan.rows.reject_schema else None
    return Screen(plan.rows, schema, again=plan.generation > 1)


def _without(
    columns: Sequence[pa.Array], failures: dict[int, str], num_rows: int
) -> list[pa.Array]:
    """Carried columns without the rows that failed."""
    import numpy as np

    kept = output.from_numpy(np.delete(np.arange(num_rows), list(failures)))
    return [column.take(kept) for column in columns]


def _expected_shape(signature: Signature, num_rows: int) -> tuple[int, ...]:
    if signature.task is Task.MULTICLASS:
        return (num_rows, len(signature.classes))
    return (num_rows,)


class _Throttled:
    """Calls `check` at most every `CHECK_S`, however often it is asked."""

    def __init__(self, check: Callable[[], None]) -> None:
        self._check = check
        self._next_at = 0.0

    def __call__(self) -> None:
        now = clock.monotonic_s()
        if now >= self._next_at:
            self._next_at = now + CHECK_S
            self._check()


class _Pace:
    """How many rows a `predict` call gets: what takes about `PREDICT_S`, measured as it goes.

    So `check` is called in time whatever the model costs. No bit of the output depends on it, for
    models are row-independent.
    """

    def __init__(self, num_threads: int) -> None:
        self.rows = _FIRST_ROWS * max(1, num_threads)

    def took(self, num_rows: int, seconds: float) -> None:
        """Learns from one call; what it allows at most doubles from call to call."""
        affordable = int(num_rows * PREDICT_S / seconds) if seconds > 0 else self.rows * 2
        self.rows = max(1, min(affordable, self.rows * 2))
