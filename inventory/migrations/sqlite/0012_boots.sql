-- Boots under way are few among all that there were.
CREATE INDEX boots_under_way ON boots (started) WHERE outcome = 'booting';

-- Blocks of a transfer that were sent more than once.
ALTER TABLE boot_events ADD COLUMN resent BIGINT;

-- The boots of one machine are read in their order.
DROP INDEX boots_machine;
CREATE INDEX boots_machine ON boots (machine, started, id);
