"""A run's output as evidence: the manifest in the ledger, the objects in the store, the inputs.

Objects are read, not believed: a part's digest is computed from its bytes and its rows are taken
from its own footer.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING, Any

import sqlalchemy as sa

from augury.data.manifest import Manifest, Part, Quarantined, looks_like_data, manifest_key
from augury.data.verification import PartFound, read_part
from augury.errors import AuguryError, CorruptError, NotFoundError
from augury.storage.database import Database
from augury.storage.objects import ObjectInfo, ObjectStore, locate, open_store
from augury.storage.tables import runs, work

if TYPE_CHECKING:
    from augury.settings import Settings


@dataclass
class Output:
    """One committed run and its output.

    Attributes:
        row: of `runs`.
        lose: called with check, subject and reason when evidence is gone.
    """

    row: sa.Row[Any]
    database: Database
    settings: Settings
    lose: Callable[[str, str, str], None]

    @property
    def subject(self) -> str:
        """How a finding names it."""
        return f"run {self.row.id}"

    @cached_property
    def store(self) -> ObjectStore:
        """Rooted at the run's folder."""
        return open_store(self.row.output_uri, self.settings)

    @cached_property
    def manifest(self) -> Manifest | None:
        """As the ledger has it; None if that is none (`manifest_text` says so)."""
        try:
            return self.read_manifest()
        except CorruptError:
            return None

    def read_manifest(self) -> Manifest:
        """The manifest in the ledger.

        Raises:
            CorruptError: it is none.
        """
        return Manifest.from_bytes(self.row.manifest.encode())

    @property
    def parts(self) -> tuple[Part, ...]:
        """What the manifest names, reject parts and those of former generations last."""
        return self.manifest.objects if self.manifest else ()

    @cached_property
    def objects(self) -> Mapping[str, ObjectInfo]:
        """What lies in the run's folder, by key."""
        return {info.key: info for info in self.store.list()}

    @cached_property
    def found(self) -> Mapping[str, PartFound]:
        """The manifest's parts that exist, by key, each read once."""
        found = {part.key: self._read(part.key) for part in self.parts if part.key in self.objects}
        return {key: read for key, read in found.items() if read is not None}

    def _read(self, key: str) -> PartFound | None:
        try:
            return read_part(self.store, key)
        except NotFoundError:  # deleted since it was listed
            return None

    @property
    def strays(self) -> list[str]:
        """Keys that somebody would take for data, or for rejects, and that no manifest names."""
        named = {part.key for part in self.parts}
        return [key for key in self.objects if looks_like_data(key) and key not in named]

    @property
    def manifest_key(self) -> str:
        """Key of the manifest of the generation that the ledger knows."""
        return manifest_key(self.row.generation)

    def manifest_bytes(self) -> bytes | None:
        """The manifest object's content; None if there is none."""
        try:
            return self.store.read(self.manifest_key)
        except NotFoundError:
            return None

    @cached_property
    def former(self) -> list[Manifest]:
        """The manifests of the generations before, as far as they lie there and can be read."""
        try:
            keys = [manifest_key(number + 1) for number in range(self.row.generation - 1)]
            return [Manifest.from_bytes(self.store.read(key)) for key in keys]
        except (NotFoundError, CorruptError):
            return []

    @property
    def first(self) -> Manifest | None:
        """The manifest of the run itself, which its plan and its shards led to."""
        if self.row.generation == 1:
            return self.manifest
        return self.former[0] if self.former else None

    def input_rows(self, uri: str, tag: str) -> int | None:
        """Rows of an input by its own footer; None if it is no longer the one that was planned."""
        from pyarrow import ArrowException
        from pyarrow.parquet import read_metadata

        subject = f"{self.subject}, input {uri}"
        try:
            store, key = locate(uri, self.settings)
            with store.open(key, tag=tag) as file:
                num_rows: int = read_metadata(file).num_rows
                file.verify()
        except AuguryError as error:  # changed, deleted, or its store does not answer
            self.lose("input_rows", subject, error.message)
            return None
        except (ArrowException, OSError) as error:
            self.lose("input_rows", subject, f"its footer cannot be read: {error}")
            return None
        return num_rows

    def quarantined_rows(self, uri: str) -> int:
        """Rows of an input's row groups that were left out."""
        quarantined = self.manifest.quarantined if self.manifest else ()
        return sum(each.num_rows or 0 for each in quarantined if each.uri == uri)

    def can_read(self, quarantined: Quarantined) -> bool:
        """True if what was left out as damaged can be read, every column of it.

        False as well if it is not the same content any more: then nobody can tell.
        """
        from pyarrow import ArrowException
        from pyarrow.parquet import ParquetFile

        try:
            store, key = locate(quarantined.uri, self.settings)
            with store.open(key, tag=quarantined.tag) as source:
                file = ParquetFile(source, page_checksum_verification=True)
                if quarantined.row_group is None:
                    return True
                batches = file.iter_batches(row_groups=[quarantined.row_group], use_threads=False)
                num_rows: int = sum(batch.num_rows for batch in batches)
                return num_rows == quarantined.num_rows
        except (AuguryError, ArrowException, OSError, ValueError):
            return False

    @cached_property
    def shards(self) -> list[sa.Row[Any]]:
        """The run's shards in order: seq, spec, result."""
        select = (
            sa.select(work.c.seq, work.c.spec, work.c.result)
            .where(work.c.run_id == self.row.id, work.c.kind == "shard")
            .order_by(work.c.seq)
        )
        with self.database.read() as connection:
            return list(connection.execute(select))


def load_run(database: Database, run_id: str) -> sa.Row[Any] | None:
    """The whole row of a run."""
    with database.read() as connection:
        return connection.execute(sa.select(runs).where(runs.c.id == run_id)).one_or_none()
