-- Answers to requests that may come twice. Times are those of the database.
CREATE TABLE answers (
    -- SHA-256 of who asked and the key that came with it, and of what was asked for.
    key TEXT NOT NULL PRIMARY KEY,
    request TEXT NOT NULL,
    at BIGINT NOT NULL,
    -- 0 while it is under way.
    done BIGINT NOT NULL DEFAULT 0,
    -- Nothing where it is not kept.
    answer TEXT
);
CREATE INDEX answers_at ON answers (at);
