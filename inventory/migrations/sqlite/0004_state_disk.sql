-- The disk on which a state partition may be made: serial:…, wwn:… or path:….
ALTER TABLE machines ADD COLUMN state_disk TEXT;
