CREATE TABLE machines (
    id INTEGER PRIMARY KEY AUTOINCREMENT,
    name TEXT NOT NULL UNIQUE,
    uuid TEXT,
    arch TEXT,
    image TEXT,
    address TEXT UNIQUE,
    cmdline TEXT NOT NULL,
    labels TEXT NOT NULL
);

CREATE TABLE machine_macs (
    mac TEXT NOT NULL PRIMARY KEY,
    machine BIGINT NOT NULL REFERENCES machines (id) ON DELETE CASCADE
);
CREATE INDEX machine_macs_machine ON machine_macs (machine);

CREATE TABLE leases (
    address TEXT NOT NULL PRIMARY KEY,
    mac TEXT NOT NULL UNIQUE,
    expires BIGINT NOT NULL,
    hostname TEXT
);

-- Boots outlive their machine: they are history.
CREATE TABLE boots (
    id INTEGER PRIMARY KEY AUTOINCREMENT,
    machine BIGINT NOT NULL,
    machine_name TEXT NOT NULL,
    mac TEXT NOT NULL,
    firmware TEXT,
    image TEXT,
    version TEXT,
    arch TEXT,
    address TEXT,
    started BIGINT NOT NULL,
    outcome TEXT NOT NULL,
    ended BIGINT
);

CREATE TABLE boot_events (
    id INTEGER PRIMARY KEY AUTOINCREMENT,
    boot BIGINT NOT NULL REFERENCES boots (id) ON DELETE CASCADE,
    at BIGINT NOT NULL,
    phase TEXT NOT NULL,
    detail TEXT NOT NULL,
    bytes BIGINT,
    millis BIGINT
);
CREATE INDEX boot_events_boot ON boot_events (boot);

CREATE TABLE sightings (
    mac TEXT NOT NULL,
    asker TEXT NOT NULL,
    firmware TEXT,
    uuid TEXT,
    first BIGINT NOT NULL,
    last BIGINT NOT NULL,
    times BIGINT NOT NULL,
    PRIMARY KEY (mac, asker)
);
CREATE INDEX sightings_last ON sightings (last);
