CREATE TABLE results (
    uuid                   TEXT NOT NULL PRIMARY KEY,
    last_processing_result TEXT NOT NULL
);
