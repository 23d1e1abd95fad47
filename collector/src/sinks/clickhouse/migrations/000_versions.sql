-- Where the number of the last migration is kept. Every statement of every migration may run again, so that two
-- collectors may start at once.
CREATE DATABASE IF NOT EXISTS {{database}}{{on_cluster}};

CREATE TABLE IF NOT EXISTS {{database}}.schema_version{{on_cluster}}
(
    object     String COMMENT 'the table that was migrated',
    version    UInt32 COMMENT 'the number of a migration that was done',
    applied_at DateTime64(3, 'UTC') DEFAULT now64(3, 'UTC')
)
ENGINE = {{engine_of_versions}}
ORDER BY (object, version);
