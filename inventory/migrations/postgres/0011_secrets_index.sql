-- Every start of a server looks for machines with secrets of their own, and hardly any has some.
CREATE INDEX machines_with_secrets ON machines (id) WHERE strpos(spec, '"secrets"') > 0;
