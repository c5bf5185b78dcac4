-- What a machine is to be, as one JSON document; name, address and hardware addresses stand beside it, so that no
-- two machines have the same.
ALTER TABLE machines ADD COLUMN spec TEXT NOT NULL DEFAULT '{}';
UPDATE machines SET spec = json_object(
    'name', name,
    'macs', (SELECT json_group_array(mac) FROM machine_macs WHERE machine = machines.id),
    'uuid', uuid,
    'arch', arch,
    'image', image,
    'address', address,
    'cmdline', cmdline,
    'state-disk', state_disk,
    'labels', json(labels)
);
ALTER TABLE machines DROP COLUMN uuid;
ALTER TABLE machines DROP COLUMN arch;
ALTER TABLE machines DROP COLUMN image;
ALTER TABLE machines DROP COLUMN cmdline;
ALTER TABLE machines DROP COLUMN labels;
ALTER TABLE machines DROP COLUMN state_disk;
