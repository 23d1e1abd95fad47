-- The columns that the declaration has got since the table was made.
ALTER TABLE {{database}}.{{local}}{{on_cluster}}
{{add_columns}};

-- with a cluster
ALTER TABLE {{database}}.{{table}}{{on_cluster}}
{{add_columns}};
