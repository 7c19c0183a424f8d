"""The whole tree of errors of the pipeline.

workers.errors.WorkError
├── Retryable
│   ├── StorageBusy        disk full, stale mount, input/output error: may pass
│   └── OutOfMemory        the block did not fit at this moment
├── Poison
│   ├── InputError         an input is not what it must be
│   │   ├── WrongType      dtype
│   │   ├── WrongShape     number of axes, axis order or extent
│   │   ├── WrongVoxelSize voxel size missing, or not what the weights were trained on
│   │   ├── NotFinite      NaN or infinity in float data
│   │   └── MissingInput   a file or a dataset inside it does not exist
│   ├── ChunkError         stored data cannot be trusted
│   │   ├── ChunkMissing   no bytes where a receipt, or the input itself, promises them
│   │   └── ChunkCorrupt   bytes fail their checksum, or do not match their receipt
│   ├── BadWeights         a weights file or its spec is not valid
│   └── WrongDevice        a worker's device is not of the run's class
├── ConfigError            the TOML file cannot be understood or asks for the impossible (exit 2)
│   └── CannotWork         the plan refuses: memory, disk, inodes, id range (exit 2)
├── IdentityMismatch       the directory holds a run with another identity (exit 78)
└── (RunLocked, Fenced, JournalDamaged: workers.errors)

The message of every error is three lines: what, with the value and the limit; where; the way out.
"""

from __future__ import annotations

from workers.errors import Poison, Retryable, WorkError


class StorageBusy(Retryable):
    """Disk full, stale mount or an input/output error: may pass."""


class OutOfMemory(Retryable):
    """The block did not fit into memory at this moment."""


class InputError(Poison):
    """An input is not what it must be."""


class WrongType(InputError):
    """An array has another dtype than its role needs."""


class WrongShape(InputError):
    """An array has another number of axes, axis order or extent than its role needs."""


class WrongVoxelSize(InputError):
    """A voxel size is missing, or is not one the weights can be applied at."""


class NotFinite(InputError):
    """Float data holds NaN or infinity."""


class MissingInput(InputError):
    """A file, or a dataset inside it, does not exist."""


class ChunkError(Poison):
    """Stored data cannot be trusted."""


class ChunkMissing(ChunkError):
    """There are no bytes where a receipt, or the input itself, promises them."""


class ChunkCorrupt(ChunkError):
    """Bytes fail their checksum, or do not match their receipt."""


class BadWeights(Poison):
    """A weights file or its spec is not valid."""


class WrongDevice(Poison):
    """A worker's device is not of the class that the run's first block was computed on."""


class ConfigError(WorkError):
    """The configuration cannot be understood or asks for the impossible."""


class CannotWork(ConfigError):
    """The plan refuses to start: it would not fit into memory, disk, inodes or ids."""


class IdentityMismatch(WorkError):
    """The directory holds a run whose identity differs from the configuration."""
