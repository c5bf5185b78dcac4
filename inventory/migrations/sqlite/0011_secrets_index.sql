-- Every start of a server looks for machines with secrets of their own, and hardly any has some.
CREATE INDEX machines_with_secrets ON machines (id) WHERE instr(spec, '"secrets"') > 0;
