-- name: may_act
-- Whether a role may act under the service's. To be a member is not enough since Postgres 16: who
-- made a role is a member that may not act under it.
SELECT pg_has_role(r.oid, %(role)s::name, CASE WHEN current_setting('server_version_num')::int >= 160000
                                         THEN 'SET' ELSE 'MEMBER' END) AS may_act
FROM pg_roles r WHERE r.rolname = coalesce(%(login)s::name, current_user)

-- name: doors
-- What everybody may do with this database, whether this owner can take that back, and who has to
-- be let in nevertheless: the service's role, and the logins that act under it.
SELECT pg_has_role(current_user, d.datdba, 'USAGE') AS is_owner,
       EXISTS (SELECT FROM aclexplode(coalesce(d.datacl, acldefault('d', d.datdba))) a
               WHERE a.grantee = 0 AND a.privilege_type IN ('CONNECT', 'TEMPORARY')) AS is_open,
       EXISTS (SELECT FROM aclexplode(coalesce(n.nspacl, acldefault('n', n.nspowner))) a
               WHERE a.grantee = 0 AND a.privilege_type = 'CREATE') AS is_public_writable,
       ARRAY (SELECT r.rolname::text FROM pg_roles r
              WHERE r.rolname = %(role)s::name
                 OR r.oid IN (SELECT m.member FROM pg_auth_members m
                              JOIN pg_roles s ON s.oid = m.roleid AND s.rolname = %(role)s::name)
              ORDER BY 1) AS admitted
FROM pg_database d, pg_namespace n
WHERE d.datname = current_database() AND n.nspname = 'public'

-- name: login
SELECT rolname::text AS login, rolsuper AS is_superuser FROM pg_roles WHERE rolname = session_user
