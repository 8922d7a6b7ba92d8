"""Metrics of the workers: the merged multiprocess files of every pool on this machine."""

from __future__ import annotations

import struct
from collections.abc import Iterator
from pathlib import Path

from prometheus_client.core import Metric
from prometheus_client.mmap_dict import MmapedDict
from prometheus_client.multiprocess import MultiProcessCollector

from switchyard.loggers import get_logger
from switchyard.workers.metrics.files import undisturbed

log = get_logger(__name__)

UNREADABLE = (OSError, ValueError, struct.error, RuntimeError)


class WorkerMetrics:
    """Collector of the workers' counters and histograms.

    Args:
        metrics_dir: One folder for each pool, one ``*.db`` file for each child and type.
        taken: Metric families of another collector; an exposition must not repeat a name.
    """

    def __init__(self, metrics_dir: Path, *, taken: frozenset[str] = frozenset()) -> None:
        self._metrics_dir = metrics_dir
        self._taken = taken

    def collect(self) -> Iterator[Metric]:
        """Return the metric families."""
        for family in self._merged():
            if family.name not in self._taken:
                yield family

    def _merged(self) -> list[Metric]:
        with undisturbed(folder for folder in self._metrics_dir.glob("*") if folder.is_dir()):
            files = sorted(str(path) for path in self._metrics_dir.glob("*/*.db"))
            try:
                return list(MultiProcessCollector.merge(files))
            except UNREADABLE:
                # A child that is starting is still creating its files.
                return list(MultiProcessCollector.merge([file for file in files if _readable(file)]))


def _readable(file: str) -> bool:
    try:
        list(MmapedDict.read_all_values_from_file(file))
    except UNREADABLE as error:
        log.info("metrics file left out of this scrape", file=Path(file).name, error=type(error).__name__)
        return False
    return True
