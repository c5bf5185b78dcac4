-- Every noun counts its changes.
ALTER TABLE machines ADD COLUMN revision BIGINT NOT NULL DEFAULT 1;

-- Who made which noun what. Each row has the hash of the one before it.
CREATE TABLE changes (
    id INTEGER PRIMARY KEY,
    at BIGINT NOT NULL,
    actor TEXT NOT NULL,
    noun TEXT NOT NULL,
    subject BIGINT NOT NULL,
    name TEXT NOT NULL,
    verb TEXT NOT NULL,
    before TEXT,
    after TEXT,
    previous TEXT NOT NULL,
    hash TEXT NOT NULL
);
CREATE INDEX changes_subject ON changes (noun, subject);

-- Nouns that are one JSON document each; beside it stands what no two of a noun may share.
CREATE TABLE documents (
    id INTEGER PRIMARY KEY AUTOINCREMENT,
    noun TEXT NOT NULL,
    name TEXT NOT NULL,
    lookup TEXT,
    document TEXT NOT NULL,
    revision BIGINT NOT NULL DEFAULT 1,
    UNIQUE (noun, name),
    UNIQUE (noun, lookup)
);
