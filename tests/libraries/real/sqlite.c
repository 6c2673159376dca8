/* Statements with results that are known, and SQLite's own speedtest1 with its check of what comes out; all in memory. */
#include <stdio.h>
#include <string.h>

#include "sqlite3.h"

int speedtest1_main(int argc, char **argv);

static int failures;

static int row(void *text, int count, char **values, char **names)
{
    (void)names;
    for (int i = 0; i < count; i++) {
        strcat(text, values[i] ? values[i] : "null");
        strcat(text, i + 1 < count ? "|" : ";");
    }
    return 0;
}

static void is(sqlite3 *db, const char *statement, const char *expected)
{
    static char text[4096];
    char *error = NULL;
    text[0] = 0;
    if (sqlite3_exec(db, statement, row, text, &error) != SQLITE_OK)
        strcat(text, error);
    sqlite3_free(error);
    int right = strcmp(text, expected) == 0;
    printf("%s: %s\n    %s\n", right ? "right" : "WRONG", statement, text);
    failures += !right;
}

int main(void)
{
    sqlite3 *db;
    setvbuf(stdout, NULL, _IOLBF, 0);
    printf("SQLite %s, %s\n", sqlite3_libversion(), sqlite3_sourceid());
    if (sqlite3_open(":memory:", &db) != SQLITE_OK)
        return 100;
    is(db, "create table t(a integer primary key, b text unique, c real)", "");
    is(db, "with recursive n(i) as (select 1 union all select i + 1 from n where i < 1000)"
           " insert into t select i, printf('%05x', i * 7919 % 65536), i / 8.0 from n", "");
    is(db, "select count(*), sum(a), min(b), max(b), avg(c) from t", "1000|500500|00010|0ff25|62.5625;");
    is(db, "select a, b from t where b > '08000' order by b limit 3", "120|08008;360|08018;600|08028;");
    is(db, "select a, sum(c) over (order by a rows 2 preceding) from t where a <= 4", "1|0.125;2|0.375;3|0.75;4|1.125;");
    is(db, "insert into t values(1001, '00010', 0)", "UNIQUE constraint failed: t.b");
    is(db, "begin; delete from t where a % 2; rollback; select count(*) from t", "1000;");
    is(db, "select json_extract('{\"a\": [1, {\"b\": 2.5}]}', '$.a[1].b'), json_group_array(a) from t where a < 4",
       "2.5|[1,2,3];");
    is(db, "select strftime('%Y-%m-%d %j %w', 951782400, 'unixepoch', '+1 year')", "2001-03-01 060 4;");
    is(db, "select 1e15 / 3, 0.1 + 0.2, 9223372036854775807 + 1, 'abc' like 'A_C', hex(zeroblob(3)), typeof(1 / 0)",
       "333333333333333.0|0.3|9.22337203685478e+18|1|000000|null;");
    is(db, "create index i on t(c desc, b); explain query plan select b from t where c = 5", "2|0|0|SEARCH t USING COVERING INDEX i (c=?);");
    is(db, "select a frm t", "near \"t\": syntax error");
    is(db, "vacuum; pragma integrity_check", "ok;");
    sqlite3_close(db);
    if (failures)
        return failures;
    char sets[] = "main,cte,fp,orm";
    char *arguments[] = {"speedtest1", "--memdb", "--verify", "--size", "2", "--testset", sets, NULL};
    return speedtest1_main(7, arguments);
}
