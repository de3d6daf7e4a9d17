-- Who may do what. Three groups, which nobody logs in as; people and applications are made members of them:
--   serving_owner   owns the schemas and all that is in them; `invoke migrate` runs the files after this one as this role
--   serving_writer  reads everything, and writes core, backtest and monitoring: the applications
--   serving_reader  reads everything: dashboards, analysts
-- PUBLIC gets nothing. May be run again at any time, also by bare psql; `invoke roles` runs it again when something that it
-- grants is missing. It wants CREATEROLE and the ownership of the database, and no superuser.

RESET ROLE;  -- the administrator's own rights, also where the ledger belongs to serving_owner already
-- Before PostgreSQL 15 everybody may create in public: a function there could fit better than the server's own that is meant,
-- and would run with the administrator's rights.
SET search_path = pg_catalog;

-- The groups, and the administrator's own membership in the one that owns.
DO $$
DECLARE
  is_super CONSTANT boolean := (SELECT rolsuper FROM pg_catalog.pg_roles WHERE rolname = current_user);
  has_set_option CONSTANT boolean := current_setting('server_version_num')::int >= 160000;
  membership text := format('GRANT serving_owner TO %I', current_user);
  name text;
BEGIN
  IF has_set_option THEN  -- who makes a role may grant it, and neither inherits from it nor becomes it until it is said
    membership := membership || ' WITH INHERIT TRUE, SET TRUE';
  END IF;
  FOREACH name IN ARRAY '{serving_owner,serving_writer,serving_reader}'::text[] LOOP
    CONTINUE WHEN pg_catalog.to_regrole(name) IS NOT NULL;
    BEGIN
      EXECUTE format('CREATE ROLE %I NOLOGIN', name);
    EXCEPTION
      WHEN duplicate_object OR unique_violation THEN
        NULL;  -- made meanwhile, from another database of this server
      WHEN insufficient_privilege THEN
        RAISE EXCEPTION '% may not make the role %', current_user, name USING
          ERRCODE = 'insufficient_privilege',
          HINT = format('An administrator with CREATEROLE runs: CREATE ROLE serving_owner; CREATE ROLE serving_writer; '
                        'CREATE ROLE serving_reader; %s; ALTER DATABASE %I OWNER TO serving_owner;',
                        membership, current_database());
    END;
  END LOOP;
  IF NOT is_super AND NOT (
    pg_catalog.pg_has_role('serving_owner', 'USAGE')
    AND pg_catalog.pg_has_role('serving_owner', CASE WHEN has_set_option THEN 'SET' ELSE 'MEMBER' END)
  ) THEN
    BEGIN
      EXECUTE membership;
    EXCEPTION
      WHEN unique_violation THEN
        NULL;  -- likewise
      WHEN insufficient_privilege THEN
        RAISE EXCEPTION '% may not act as serving_owner', current_user USING
          ERRCODE = 'insufficient_privilege',
          HINT = format('An administrator runs: %s;', membership);
    END;
  END IF;
END
$$;

-- The database: nobody connects or makes temporary tables because nothing was said. Applications are let in one by one
-- (`invoke roles`), so that those of another database on this server, which share the groups, stay out.
DO $$
BEGIN
  IF pg_catalog.pg_has_role((SELECT datdba FROM pg_catalog.pg_database WHERE datname = current_database()), 'USAGE') THEN
    EXECUTE format('REVOKE ALL ON DATABASE %I FROM PUBLIC', current_database());
    EXECUTE format('GRANT CONNECT, CREATE, TEMPORARY ON DATABASE %I TO serving_owner', current_database());
    EXECUTE format('GRANT CONNECT ON DATABASE %I TO serving_reader', current_database());
  ELSE
    RAISE EXCEPTION '% does not own the database %', current_user, current_database() USING
      ERRCODE = 'insufficient_privilege',
      HINT = format('Its owner, or a superuser, runs: ALTER DATABASE %I OWNER TO serving_owner;', current_database());
  END IF;
END
$$;

-- The schemas, and what is in them already.
DO $$
DECLARE
  kept record;
  target record;
  may_write text;
BEGIN
  FOR target IN
    SELECT n.oid, d.name, d.written
    FROM (VALUES ('core', true), ('backtest', true), ('monitoring', true), ('gold', false), ('platinum', false))
      AS d (name, written)
    JOIN pg_catalog.pg_namespace AS n ON n.nspname = d.name
  LOOP
    may_write := CASE WHEN target.written THEN ', INSERT, UPDATE, DELETE' ELSE '' END;
    EXECUTE format('ALTER SCHEMA %I OWNER TO serving_owner', target.name);
    FOR kept IN
      SELECT format('ALTER TABLE %I.%I OWNER TO serving_owner', target.name, c.relname) AS statement
      FROM pg_catalog.pg_class AS c
      WHERE c.relnamespace = target.oid AND c.relkind IN ('r', 'p', 'v', 'm', 'f', 'S')
        AND c.relowner <> 'serving_owner'::regrole
        AND NOT EXISTS (  -- of an extension, or a column's sequence, which goes with its table
          SELECT FROM pg_catalog.pg_depend AS p
          WHERE p.classid = 'pg_class'::regclass AND p.objid = c.oid
            AND (p.deptype = 'e' OR c.relkind = 'S' AND p.deptype IN ('a', 'i')))
      UNION ALL
      SELECT format('ALTER ROUTINE %s OWNER TO serving_owner', f.oid::regprocedure)
      FROM pg_catalog.pg_proc AS f
      WHERE f.pronamespace = target.oid AND f.proowner <> 'serving_owner'::regrole
        AND NOT EXISTS (
          SELECT FROM pg_catalog.pg_depend AS p
          WHERE p.classid = 'pg_proc'::regclass AND p.objid = f.oid AND p.deptype = 'e')
      UNION ALL
      SELECT format('ALTER %s %s OWNER TO serving_owner', CASE t.typtype WHEN 'd' THEN 'DOMAIN' ELSE 'TYPE' END, t.oid::regtype)
      FROM pg_catalog.pg_type AS t LEFT JOIN pg_catalog.pg_class AS c ON c.oid = t.typrelid
      WHERE t.typnamespace = target.oid AND t.typowner <> 'serving_owner'::regrole
        AND (t.typtype IN ('d', 'e', 'r') OR c.relkind = 'c')
        AND NOT EXISTS (
          SELECT FROM pg_catalog.pg_depend AS p
          WHERE p.classid = 'pg_type'::regclass AND p.objid = t.oid AND p.deptype = 'e')
    LOOP
      BEGIN
        EXECUTE kept.statement;
      EXCEPTION WHEN insufficient_privilege THEN
        RAISE WARNING '% (%)', SQLERRM, kept.statement USING HINT = 'Its owner, or a superuser, can hand it over.';
      END;
    END LOOP;

    EXECUTE format('REVOKE ALL ON SCHEMA %I FROM PUBLIC', target.name);
    EXECUTE format('GRANT USAGE ON SCHEMA %I TO serving_writer, serving_reader', target.name);
    FOR kept IN
      SELECT c.oid::regclass AS name, c.relkind = 'S' AS is_sequence
      FROM pg_catalog.pg_class AS c
      WHERE c.relnamespace = target.oid AND c.relkind IN ('r', 'p', 'v', 'm', 'f', 'S')
        AND c.relowner = 'serving_owner'::regrole
    LOOP
      EXECUTE format('REVOKE ALL ON TABLE %s FROM PUBLIC', kept.name);
      EXECUTE format('GRANT SELECT ON TABLE %s TO serving_reader', kept.name);
      IF kept.is_sequence THEN
        EXECUTE format('GRANT SELECT%s ON SEQUENCE %s TO serving_writer',
                       CASE WHEN target.written THEN ', USAGE' ELSE '' END, kept.name);
      ELSE
        EXECUTE format('GRANT SELECT%s ON TABLE %s TO serving_writer', may_write, kept.name);
      END IF;
    END LOOP;
    FOR kept IN
      SELECT f.oid::regprocedure AS name
      FROM pg_catalog.pg_proc AS f
      WHERE f.pronamespace = target.oid AND f.proowner = 'serving_owner'::regrole
    LOOP
      EXECUTE format('REVOKE ALL ON ROUTINE %s FROM PUBLIC', kept.name);
      EXECUTE format('GRANT EXECUTE ON ROUTINE %s TO serving_writer, serving_reader', kept.name);
    END LOOP;

    -- What later migrations make.
    EXECUTE format('ALTER DEFAULT PRIVILEGES FOR ROLE serving_owner IN SCHEMA %I '
                   'GRANT SELECT%s ON TABLES TO serving_writer', target.name, may_write);
    EXECUTE format('ALTER DEFAULT PRIVILEGES FOR ROLE serving_owner IN SCHEMA %I '
                   'GRANT SELECT ON TABLES TO serving_reader', target.name);
    EXECUTE format('ALTER DEFAULT PRIVILEGES FOR ROLE serving_owner IN SCHEMA %I GRANT SELECT%s ON SEQUENCES TO serving_writer',
                   target.name, CASE WHEN target.written THEN ', USAGE' ELSE '' END);
    EXECUTE format('ALTER DEFAULT PRIVILEGES FOR ROLE serving_owner IN SCHEMA %I '
                   'GRANT SELECT ON SEQUENCES TO serving_reader', target.name);
    EXECUTE format('ALTER DEFAULT PRIVILEGES FOR ROLE serving_owner IN SCHEMA %I '
                   'GRANT EXECUTE ON ROUTINES TO serving_writer, serving_reader', target.name);
  END LOOP;
END
$$;

-- In PostgreSQL, every function may be run by everybody until that is taken away; these two can't be said for one schema.
ALTER DEFAULT PRIVILEGES FOR ROLE serving_owner REVOKE EXECUTE ON ROUTINES FROM PUBLIC;
ALTER DEFAULT PRIVILEGES FOR ROLE serving_owner REVOKE USAGE ON TYPES FROM PUBLIC;

-- The schema public, which before PostgreSQL 15 everybody may create in, and the ledger in it: read, and written by its owner.
DO $$
BEGIN
  IF pg_catalog.pg_has_role((SELECT nspowner FROM pg_catalog.pg_namespace WHERE nspname = 'public'), 'USAGE') THEN
    REVOKE ALL ON SCHEMA public FROM PUBLIC;
    GRANT USAGE, CREATE ON SCHEMA public TO serving_owner;
    GRANT USAGE ON SCHEMA public TO serving_writer, serving_reader;
  ELSE
    RAISE WARNING 'the schema public stays as it is: % does not own it', current_user USING
      HINT = 'Its owner, or a superuser, runs: ALTER SCHEMA public OWNER TO serving_owner;';
  END IF;
END
$$;
ALTER TABLE public.schema_migrations OWNER TO serving_owner;
REVOKE ALL ON TABLE public.schema_migrations FROM PUBLIC;
GRANT SELECT ON TABLE public.schema_migrations TO serving_writer, serving_reader;
RESET search_path;
