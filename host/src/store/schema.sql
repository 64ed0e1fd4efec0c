-- What the host keeps. Everything in here came from the enclave and proves itself to verifiers; the
-- host believes none of it. Digests, ids and proofs are raw bytes, JSON is canonical text.

-- One row for each start of an enclave that was seen; the one that was seen last has the greatest turn.
CREATE TABLE boots (
    boot    INTEGER PRIMARY KEY,
    id      BLOB    NOT NULL UNIQUE,     -- 16 bytes
    turn    INTEGER NOT NULL,
    through INTEGER NOT NULL             -- number of the last batch stored
) STRICT;

-- The boot of each enclave that is the current one, by the name that the settings give the enclave. What
-- was promised under another boot is lost.
CREATE TABLE enclaves (
    name TEXT    PRIMARY KEY,
    boot INTEGER NOT NULL REFERENCES boots
) STRICT, WITHOUT ROWID;

CREATE TABLE keysets (
    keyset   INTEGER PRIMARY KEY,
    digest   BLOB    NOT NULL UNIQUE,
    boot     INTEGER NOT NULL REFERENCES boots,
    jcs      TEXT    NOT NULL,
    evidence TEXT    NOT NULL,           -- of purpose boot, without collateral
    closed   INTEGER NOT NULL DEFAULT 0  -- 1: its log has ended, nothing more will be sealed
) STRICT;

CREATE TABLE catalogs (
    digest BLOB PRIMARY KEY,
    jcs    TEXT NOT NULL
) STRICT, WITHOUT ROWID;

-- What keysets and catalogs name by digest: settings, build statements, configurations of models.
CREATE TABLE objects (
    digest BLOB PRIMARY KEY,
    bytes  BLOB NOT NULL
) STRICT, WITHOUT ROWID;

-- One row for each seal: the checkpoint and its quote.
CREATE TABLE batches (
    batch    INTEGER PRIMARY KEY,
    boot     INTEGER NOT NULL REFERENCES boots,
    number   INTEGER NOT NULL,
    keyset   INTEGER NOT NULL REFERENCES keysets,
    size     INTEGER NOT NULL,           -- of the tree
    root     BLOB    NOT NULL,
    note     TEXT    NOT NULL,           -- signed
    evidence TEXT    NOT NULL            -- of purpose checkpoint, without collateral
) STRICT;
CREATE INDEX batches_by_number ON batches (boot, number);
CREATE INDEX batches_by_size ON batches (keyset, size);

-- Receipts and their proofs, up to 64 consecutive ones in a blob (src/store/pack.rs).
CREATE TABLE packs (
    pack    INTEGER PRIMARY KEY,
    batch   INTEGER NOT NULL REFERENCES batches,
    keyset  INTEGER NOT NULL REFERENCES keysets,
    first   INTEGER NOT NULL,            -- sequence number of the first receipt
    records BLOB    NOT NULL
) STRICT;
CREATE INDEX packs_by_sequence ON packs (keyset, first);

-- Where each receipt is.
CREATE TABLE receipts (
    id   BLOB PRIMARY KEY,               -- 16 bytes
    pack INTEGER NOT NULL REFERENCES packs,
    slot INTEGER NOT NULL
) STRICT, WITHOUT ROWID;

-- Quotes of single receipts.
CREATE TABLE quotes (
    id       BLOB PRIMARY KEY,
    evidence TEXT NOT NULL               -- of purpose receipt, without collateral
) STRICT, WITHOUT ROWID;

-- Receipts that were promised to a caller and are not stored, as they came: all of one kind that were written down together
-- (src/store/notes.rs).
CREATE TABLE notes (
    round      INTEGER NOT NULL,
    part       INTEGER NOT NULL,
    keyset     BLOB    NOT NULL,         -- its digest: it may not be known yet
    guarantees TEXT    NOT NULL,
    boot       INTEGER REFERENCES boots, -- the boot that was current when they were noted
    enclave    TEXT,                     -- name of the enclave that answered, where it is known
    ids        BLOB    NOT NULL,         -- of 16 bytes each
    PRIMARY KEY (round, part)
) STRICT, WITHOUT ROWID;

-- Single receipts that are not stored: those that are lost, being of an older boot or a log that has ended; those that were
-- had before their seal; and all that were promised, where a file was made by a host that knew no notes.
CREATE TABLE pending (
    id       BLOB PRIMARY KEY,
    keyset   BLOB NOT NULL,              -- its digest: it may not be known yet
    guarantees TEXT NOT NULL,
    boot     INTEGER REFERENCES boots,   -- the boot that was current when it was noted
    receipt  BLOB,                       -- COSE_Sign1, where it was had before its seal
    enclave  TEXT                        -- name of the enclave that answered, where it is known
) STRICT, WITHOUT ROWID;

-- Receipts and checkpoints that contradict each other: proof that an enclave misbehaved, or that
-- its key is no longer its own. Kept as they came, never deleted.
CREATE TABLE misbehaviour (
    number   INTEGER PRIMARY KEY,
    kind     TEXT    NOT NULL,           -- 'sequence', 'id' or 'checkpoint'
    keyset   INTEGER NOT NULL REFERENCES keysets,
    first    BLOB    NOT NULL,           -- COSE_Sign1, or signed note
    second   BLOB    NOT NULL,
    proof    TEXT                        -- of the second: tlog-proof
) STRICT;
