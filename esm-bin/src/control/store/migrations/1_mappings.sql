CREATE TABLE mappings (
    uuid             TEXT   NOT NULL PRIMARY KEY,
    function_name    TEXT   NOT NULL,
    function_arn     TEXT   NOT NULL,
    event_source_arn TEXT   NOT NULL,
    virtual_host     TEXT   NOT NULL,
    queue            TEXT   NOT NULL,
    spec             TEXT   NOT NULL,
    tags             TEXT   NOT NULL,
    state            TEXT   NOT NULL,
    revision         BIGINT NOT NULL,
    last_modified_ms BIGINT NOT NULL
);
CREATE UNIQUE INDEX mappings_route ON mappings (event_source_arn, queue, virtual_host, function_arn);
CREATE INDEX mappings_function ON mappings (function_name, uuid);
CREATE INDEX mappings_active ON mappings (uuid) WHERE state <> 'Disabled';
