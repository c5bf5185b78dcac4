-- SHA-256 of the token with which the system of a boot proves itself. Only the newest boot of a machine has one, and
-- only from when the machine was given the token.
CREATE TABLE boot_tokens (
    boot BIGINT NOT NULL PRIMARY KEY REFERENCES boots (id) ON DELETE CASCADE,
    sha256 TEXT NOT NULL
);

-- What running machines were told to do. An order is for one boot: no later one carries it out.
CREATE TABLE orders (
    id INTEGER PRIMARY KEY AUTOINCREMENT,
    machine BIGINT NOT NULL,
    machine_name TEXT NOT NULL,
    boot BIGINT NOT NULL,
    kind TEXT NOT NULL,
    arguments TEXT NOT NULL,
    asked BIGINT NOT NULL,
    asked_by TEXT NOT NULL,
    expires BIGINT NOT NULL,
    state TEXT NOT NULL,
    sent BIGINT,
    ended BIGINT,
    answer TEXT NOT NULL
);
CREATE INDEX orders_boot ON orders (boot, state);
CREATE INDEX orders_machine ON orders (machine);
