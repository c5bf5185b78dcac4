-- Addresses of IPv6, each given to one association (IA) of one client.
CREATE TABLE leases6 (
    address TEXT NOT NULL PRIMARY KEY,
    duid TEXT NOT NULL,
    iaid BIGINT NOT NULL,
    mac TEXT,
    expires BIGINT NOT NULL,
    UNIQUE (duid, iaid)
);

ALTER TABLE machines ADD COLUMN address6 TEXT;
CREATE UNIQUE INDEX machines_address6 ON machines (address6);
