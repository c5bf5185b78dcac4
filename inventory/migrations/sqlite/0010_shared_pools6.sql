-- Which server gives the addresses of a block of a pool of IPv6, and until when; a block is named by its first address.
CREATE TABLE pool_blocks6 (
    block TEXT NOT NULL PRIMARY KEY,
    server BIGINT NOT NULL REFERENCES servers (id),
    until BIGINT NOT NULL
);
CREATE INDEX pool_blocks6_server ON pool_blocks6 (server);

-- A client may have had an address of each server: only its own server knows which of its leases it gave up.
CREATE TABLE new_leases6 (
    address TEXT NOT NULL PRIMARY KEY,
    duid TEXT NOT NULL,
    iaid BIGINT NOT NULL,
    mac TEXT,
    expires BIGINT NOT NULL,
    server BIGINT NOT NULL DEFAULT 0,
    UNIQUE (server, duid, iaid)
);
INSERT INTO new_leases6 (address, duid, iaid, mac, expires) SELECT address, duid, iaid, mac, expires FROM leases6;
DROP TABLE leases6;
ALTER TABLE new_leases6 RENAME TO leases6;
