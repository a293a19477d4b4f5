-- The replicas of the read model: `goods` is the first, `replica_1` and so on are made by the shop when it begins.

-- The state before a run: these levels, as version 0, in each replica, and nothing else.
CREATE OR REPLACE FUNCTION start_over(_levels int[]) RETURNS void AS $$
DECLARE
    _replica name;
BEGIN
    EXECUTE (SELECT 'TRUNCATE ' || string_agg(quote_ident(tablename), ', ') FROM pg_tables
             WHERE schemaname = current_schema());
    INSERT INTO goods SELECT k - 1, level, 0 FROM unnest(_levels) WITH ORDINALITY AS t (level, k);
    FOR _replica IN SELECT tablename FROM pg_tables WHERE schemaname = current_schema() AND tablename LIKE 'replica\_%' LOOP
        EXECUTE format('INSERT INTO %I SELECT * FROM goods', _replica);
    END LOOP;
END $$ LANGUAGE plpgsql;
