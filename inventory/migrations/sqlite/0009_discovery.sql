-- Machines that nobody has added, one row for each box. Anyone on the network can make them up, so that their number is
-- bounded; `marked` ones, of which a person has said something, stay.
CREATE TABLE discovered (
    id INTEGER PRIMARY KEY AUTOINCREMENT,
    revision BIGINT NOT NULL DEFAULT 1,
    marked BIGINT NOT NULL DEFAULT 0,
    last BIGINT NOT NULL,
    uuid TEXT,
    document TEXT NOT NULL,
    facts TEXT
);
CREATE INDEX discovered_last ON discovered (marked, last);
CREATE INDEX discovered_uuid ON discovered (uuid);

CREATE TABLE discovered_macs (
    mac TEXT NOT NULL PRIMARY KEY,
    entry BIGINT NOT NULL REFERENCES discovered (id) ON DELETE CASCADE
);
CREATE INDEX discovered_macs_entry ON discovered_macs (entry);
