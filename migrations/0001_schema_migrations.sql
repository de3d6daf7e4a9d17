-- The ledger of the migrations: one row for each file that was applied to this database.
-- `invoke migrate` runs this file before anything else, whatever folder it is given; it may be run again at any time,
-- also by bare psql. An older ledger (version, applied_at) is upgraded in place and keeps its rows.

-- The oldest shape first and the rest added to it, so that a new ledger and an upgraded one are the same to the byte.
SELECT to_regclass('public.schema_migrations') IS NULL AS ledger_is_missing \gset
\if :ledger_is_missing
  CREATE TABLE public.schema_migrations (
    version text PRIMARY KEY,
    applied_at timestamptz
  );
\endif

DO $$
BEGIN
  IF NOT EXISTS (
    SELECT FROM pg_catalog.pg_attribute
    WHERE attrelid = 'public.schema_migrations'::regclass AND attname = 'state' AND NOT attisdropped
  ) THEN
    ALTER TABLE public.schema_migrations
      ALTER COLUMN applied_at SET DEFAULT now(),
      ADD COLUMN name text,
      ADD COLUMN checksum text,
      ADD COLUMN applied_by text,
      ADD COLUMN duration_ms bigint,
      ADD COLUMN state text NOT NULL DEFAULT 'applied'
        CONSTRAINT schema_migrations_state_check CHECK (state IN ('started', 'applied')),
      ADD COLUMN tool_version text,
      ADD COLUMN git_revision text;
    COMMENT ON TABLE public.schema_migrations IS 'The migrations that were applied to this database.';
    COMMENT ON COLUMN public.schema_migrations.version IS 'The digits of the file''s name, as written.';
    COMMENT ON COLUMN public.schema_migrations.checksum IS
      'sha256 of the file, without BOM and with LF line ends; null in rows of the older ledger.';
    COMMENT ON COLUMN public.schema_migrations.state IS
      'applied, or started: a no-transaction file that began and has not ended.';
  END IF;
END
$$;
