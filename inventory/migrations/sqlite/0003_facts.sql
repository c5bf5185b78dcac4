-- When the kernel of a boot started, by the clock of the server.
ALTER TABLE boots ADD COLUMN kernel_start BIGINT;
CREATE INDEX boots_machine ON boots (machine);
-- How long what an event tells of lasted.
ALTER TABLE boot_events ADD COLUMN took BIGINT;

-- What a machine said last about itself.
CREATE TABLE machine_facts (
    machine BIGINT NOT NULL PRIMARY KEY REFERENCES machines (id) ON DELETE CASCADE,
    boot BIGINT NOT NULL,
    at BIGINT NOT NULL,
    facts TEXT NOT NULL
);

-- The last words of kernels whose boot failed.
CREATE TABLE kernel_logs (
    boot BIGINT NOT NULL PRIMARY KEY REFERENCES boots (id) ON DELETE CASCADE,
    at BIGINT NOT NULL,
    log TEXT NOT NULL
);
