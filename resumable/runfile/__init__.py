"""The run file: its format, creation, lock, writer and tables.

What has ``user_file`` in its name is about a file of the user, and may change it.
"""

from __future__ import annotations

from resumable.runfile.create import (
    ALIGNMENT,
    USID_ANCILLARIES,
    USID_SPECTROSCOPIC,
    Coordinates,
    RunFileSpec,
    Scale,
    create_contiguous,
    create_run_file,
    free_name,
    make_results_group,
    reserve_rows,
    target_errors,
)
from resumable.runfile.file import RunFile, Snapshot, find_runs, is_run_file, run_path
from resumable.runfile.folder import (
    RunFolder,
    RunLock,
    holder_of,
    run_folder_of,
    target_folder,
)
from resumable.runfile.hdf5 import (
    HDF5_VERSIONS,
    SafeFile,
    chunk_table,
    find_own,
    new_hdf5,
    superblock_of,
)
from resumable.runfile.header import (
    CHUNKS,
    CHUNKS_DTYPE,
    CLOSE,
    FAILURE_ROWS,
    LEFT,
    MAGIC,
    REPAIR,
    TABLE_DTYPES,
    Header,
    advice_anew,
    digest_of,
    structure_digest,
    table_rows,
)
from resumable.runfile.journal import (
    mend_user_file,
    user_file_locked,
    user_file_needs_mending,
    user_file_transaction,
)
from resumable.runfile.kept import (
    KEPT_BYTES,
    MOST_ARRAYS,
    arrays_kept,
    as_npy,
    of_npy,
    read_arrays,
)
from resumable.runfile.ragged import (
    RaggedRows,
    copied_rows,
    ragged_files_of,
    remove_ragged_files,
)
from resumable.runfile.repair import chunks_agree, open_elsewhere, repair_run_file
from resumable.runfile.rows import names_fields, packed_chunks, reading_group
from resumable.runfile.tables import Failure, LogLine, SessionRow, SessionTables
from resumable.runfile.writer import RowBuffer, RowWriter, WriteTarget

__all__ = [
    "ALIGNMENT",
    "CHUNKS",
    "CHUNKS_DTYPE",
    "CLOSE",
    "FAILURE_ROWS",
    "HDF5_VERSIONS",
    "KEPT_BYTES",
    "LEFT",
    "MAGIC",
    "MOST_ARRAYS",
    "REPAIR",
    "TABLE_DTYPES",
    "USID_ANCILLARIES",
    "USID_SPECTROSCOPIC",
    "Coordinates",
    "Failure",
    "Header",
    "LogLine",
    "RaggedRows",
    "RowBuffer",
    "RowWriter",
    "RunFile",
    "RunFileSpec",
    "RunFolder",
    "RunLock",
    "SafeFile",
    "Scale",
    "SessionRow",
    "SessionTables",
    "Snapshot",
    "WriteTarget",
    "advice_anew",
    "arrays_kept",
    "as_npy",
    "chunk_table",
    "chunks_agree",
    "copied_rows",
    "create_contiguous",
    "create_run_file",
    "digest_of",
    "find_own",
    "find_runs",
    "free_name",
    "holder_of",
    "is_run_file",
    "make_results_group",
    "mend_user_file",
    "names_fields",
    "new_hdf5",
    "of_npy",
    "open_elsewhere",
    "packed_chunks",
    "ragged_files_of",
    "read_arrays",
    "reading_group",
    "remove_ragged_files",
    "repair_run_file",
    "reserve_rows",
    "run_folder_of",
    "run_path",
    "structure_digest",
    "superblock_of",
    "table_rows",
    "target_errors",
    "target_folder",
    "user_file_locked",
    "user_file_needs_mending",
    "user_file_transaction",
]
