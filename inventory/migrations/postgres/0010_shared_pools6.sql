-- Which server gives the addresses of a block of a pool of IPv6, and until when; a block is named by its first address.
CREATE TABLE pool_blocks6 (
    block TEXT NOT NULL PRIMARY KEY,
    server BIGINT NOT NULL REFERENCES servers (id),
    until BIGINT NOT NULL
);
CREATE INDEX pool_blocks6_server ON pool_blocks6 (server);

-- A client may have had an address of each server: only its own server knows which of its leases it gave up.
ALTER TABLE leases6 DROP CONSTRAINT leases6_duid_iaid_key;
ALTER TABLE leases6 ADD COLUMN server BIGINT NOT NULL DEFAULT 0;
ALTER TABLE leases6 ADD CONSTRAINT leases6_server_association UNIQUE (server, duid, iaid);
