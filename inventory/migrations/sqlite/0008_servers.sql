-- Servers that share the inventory. Times are those of the database.
CREATE TABLE servers (
    id INTEGER PRIMARY KEY AUTOINCREMENT,
    -- What the folder of its data is known by: who loses that is another server.
    identity TEXT NOT NULL UNIQUE,
    name TEXT NOT NULL,
    subnets TEXT NOT NULL,
    heartbeat BIGINT NOT NULL
);

-- Which server gives the addresses of a block of a pool, and until when; block N begins at the address N * 16.
CREATE TABLE pool_blocks (
    block BIGINT NOT NULL PRIMARY KEY,
    server BIGINT NOT NULL REFERENCES servers (id),
    until BIGINT NOT NULL
);
CREATE INDEX pool_blocks_server ON pool_blocks (server);

-- Who follows a boot.
ALTER TABLE boots ADD COLUMN server BIGINT NOT NULL DEFAULT 0;
CREATE INDEX boots_started ON boots (started);

-- A client may have had an address of each server: only its own server knows which of its leases it gave up.
CREATE TABLE new_leases (
    address TEXT NOT NULL PRIMARY KEY,
    mac TEXT NOT NULL,
    expires BIGINT NOT NULL,
    hostname TEXT,
    server BIGINT NOT NULL DEFAULT 0,
    UNIQUE (server, mac)
);
INSERT INTO new_leases (address, mac, expires, hostname) SELECT address, mac, expires, hostname FROM leases;
DROP TABLE leases;
ALTER TABLE new_leases RENAME TO leases;
