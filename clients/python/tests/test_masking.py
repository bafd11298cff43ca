"""A table of commands as people type them: no secret of theirs is recorded, and all else is."""

from __future__ import annotations

import base64
import random
import secrets
import shlex
import string
from collections.abc import Callable
from pathlib import Path

import pytest

from holdfast.secrets import masked, masked_command, masked_script

# Nothing in its form tells that it is a secret.
SECRET = "opensesame"
# A command a line, as a shell reads it.
TOLD_BY_PLACE_OR_NAME = r"""
vault login opensesame
vault login -method=userpass username=me password=opensesame
vault login -method=github opensesame
vault kv put secret/x value=opensesame
vault kv put secret/x foo=opensesame bar=opensesame
vault write auth/userpass/users/me password=opensesame
vault unseal opensesame
vault operator unseal opensesame
vault unwrap opensesame
sh -c 'vault login opensesame'
sh -c 'cmd <<< opensesame'
sh -c 'cmd <<< "opensesame and more"'
bash -c "gh auth login --with-token <<<opensesame"
sh -c 'echo opensesame | gh auth login --with-token'
sh -c 'echo "opensesame" | vault login -'
sh -c 'printf opensesame | sudo -S ls'
sh -c 'echo opensesame | cryptsetup luksOpen /dev/sda x -'
mysql -uroot -popensesame db
mysql -u root --password=opensesame db
mysql --defaults-extra-file=x -popensesame
/usr/bin/mysql -popensesame
env FOO=bar mysql -popensesame
sudo -u postgres mysql -popensesame
docker exec -it db mysql -uroot -popensesame
docker run mysql mysqldump -popensesame
curl -u user:opensesame https://x
curl -uuser:opensesame https://x
curl -su user:opensesame https://x
curl --proxy-user u:opensesame x
curl -U u:opensesame x
curl -H "X-Auth: opensesame" x
curl -H "X-Vault-Token: opensesame" x
curl -H "api_key: opensesame" x
curl -F password=opensesame x
curl -d user=me&pass=opensesame x
curl --data-raw '{"pass":"opensesame"}'
curl --data-urlencode password=opensesame x
curl --oauth2-bearer opensesame x
curl --cert client.pem:opensesame x
curl -E client.pem:opensesame x
curl --pass opensesame x
curl --aws-sigv4 aws:amz -u AKID:opensesame x
curl --cookie sid=opensesame
wget --http-password=opensesame x
wget --header="Authorization: opensesame" x
http GET x Authorization:opensesame
http -a me:opensesame x
docker login -p opensesame -u me reg
docker login reg -u me -popensesame
docker login --password opensesame
podman login -u me -p opensesame reg
helm registry login -p opensesame -u me reg
az acr login -p opensesame -n x
az login -u me -p opensesame
az login --service-principal -u a -p opensesame --tenant x
oc login -u me -p opensesame
oc login --token=opensesame
cf login -u me -p opensesame
cf auth me opensesame
npm config set //registry.npmjs.org/:_authToken opensesame
npm config set //registry.npmjs.org/:_authToken=opensesame
twine upload -u me -p opensesame dist/*
twine upload -u __token__ --password opensesame
poetry config pypi-token.pypi opensesame
poetry config http-basic.foo me opensesame
poetry publish -u me -p opensesame
pip install --index-url https://me:opensesame@host/simple x
pip install -i https://opensesameopensesameopensesame@host/simple x
sh -c 'AWS_SECRET_ACCESS_KEY=opensesame cmd'
AWS_SECRET_ACCESS_KEY=opensesame cmd
aws configure set aws_secret_access_key opensesame
aws configure set default.aws_session_token opensesame --profile x
aws ssm put-parameter --name x --value opensesame --type SecureString
aws secretsmanager create-secret --name x --secret-string opensesame
aws secretsmanager put-secret-value --secret-id x --secret-string opensesame
git config --global http.extraHeader "Authorization: Basic opensesame"
git -c http.extraheader="AUTHORIZATION: bearer opensesame" clone x
git remote add origin https://opensesame:x-oauth-basic@github.com/x
git remote set-url origin https://oauth2:opensesame@gitlab.com/x
git config user.password opensesame
git config --global credential.helper '!f() { echo password=opensesame; }; f'
gh auth login --with-token opensesame
gh secret set FOO -bopensesame
gh secret set FOO -b opensesame
heroku config:set FOO=opensesame
heroku config:set API_KEY=opensesame
fly secrets set FOO=opensesame
flyctl secrets set FOO=opensesame
vercel --token opensesame
vercel -t opensesame
netlify --auth opensesame
kubectl create secret generic x --from-literal=a=opensesame
kubectl create secret generic x --from-literal a=opensesame
kubectl create secret docker-registry x --docker-password=opensesame
kubectl -n x create secret generic y --from-literal=a=opensesame
kubectl config set-credentials x --token=opensesame --password=opensesame
kubectl --token opensesame get pods
htpasswd -b file user opensesame
htpasswd -nb user opensesame
htpasswd -bc file user opensesame
sshpass -p opensesame ssh a
sshpass -popensesame ssh a
openssl enc -k opensesame -in x
openssl enc -pass pass:opensesame -in x
openssl rsa -passout pass:opensesame
openssl passwd opensesame
openssl passwd -6 opensesame
mkpasswd opensesame
mkpasswd -m sha-512 opensesame
gpg --batch --passphrase opensesame -d x
ssh-keygen -t ed25519 -N opensesame -f x
ssh-keygen -p -P opensesame -N opensesame -f x
ssh-keygen -Nopensesame -f x
keytool -storepass opensesame -keypass opensesame
keytool -importkeystore -srcstorepass opensesame -deststorepass opensesame
jarsigner -storepass opensesame x
psql "host=x user=me password=opensesame dbname=x"
psql postgres://me:opensesame@host/db
psql 'postgres://me@host/db?password=opensesame'
mongosh mongodb+srv://me:opensesame@host/db
mongosh -u me -p opensesame
redis-cli -a opensesame ping
redis-cli -u redis://:opensesame@host
redis-cli --pass opensesame
redis-cli auth opensesame
redis-cli AUTH me opensesame
redis-cli config set requirepass opensesame
psql -c "ALTER USER me PASSWORD 'opensesame'"
psql -c "ALTER ROLE me WITH ENCRYPTED PASSWORD 'opensesame'"
mysql -e "CREATE USER x IDENTIFIED BY 'opensesame'"
mysql -e "SET PASSWORD FOR x = PASSWORD('opensesame')"
sqlplus me/opensesame@db
sqlcmd -U sa -P opensesame -Q x
bcp x in y -U sa -P opensesame
smbclient //h/s -U me%opensesame
smbclient //h/s opensesame -U me
mount -t cifs //h/s /m -o username=me,password=opensesame
net use x: \\h\s opensesame /user:me
rclone config create r s3 secret_access_key opensesame
rclone obscure opensesame
nmcli dev wifi connect x password opensesame
wpa_passphrase ssid opensesame
ansible-playbook -e ansible_password=opensesame x
ansible-playbook -e '{"vault_pass": "opensesame"}'
ansible-playbook --extra-vars "ansible_become_pass=opensesame"
terraform apply -var db_password=opensesame
terraform apply -var 'token=opensesame'
chpasswd <<< me:opensesame
sh -c 'echo me:opensesame | chpasswd'
sh -c 'echo "opensesame" | passwd --stdin me'
useradd -p opensesame me
usermod -p opensesame me
op signin --account x opensesame
op item create --category=login password=opensesame
bw unlock opensesame
bw login me@x.org opensesame
bw unlock --session opensesame
security add-generic-password -a me -s svc -w opensesame
security unlock-keychain -p opensesame
7z a -popensesame x.7z
unzip -P opensesame x.zip
rar a -hpopensesame x.rar
qpdf --encrypt opensesame opensesame 256 -- a b
pdftk in output out user_pw opensesame
snmpwalk -v3 -A opensesame -X opensesame host
snmpget -v2c -c opensesame host
ldapsearch -D cn=x -w opensesame
kinit --password=opensesame
ncftp -u me -p opensesame host
lftp -u me,opensesame host
lftp -e "open -u me,opensesame host"
ftp ftp://me:opensesame@host
sftp me:opensesame@host
xfreerdp /u:me /p:opensesame /v:host
rdesktop -u me -p opensesame host
vncviewer -passwd opensesame
ipmitool -U me -P opensesame
telegram-send --token opensesame
agent --jwt=opensesame
agent --bearer opensesame
agent --access-token-value opensesame
agent -H "Authorization: opensesame"
agent --auth me:opensesame
agent --credentials me:opensesame
agent --license-key opensesame
agent --webhook https://hooks.slack.com/services/T/B/opensesame
agent --dsn https://opensesameopensesame@sentry.io/1
agent --connection-string "Server=x;User Id=me;Password=opensesame;"
agent --passphrase=opensesame
agent --seed-phrase "opensesame a b c"
agent --recovery-code opensesame
agent --totp-secret opensesame
agent --private-key opensesame
agent --encryption-key opensesame
agent --signing-key opensesame
agent --master-key opensesame
agent --session-key opensesame
agent --access-key opensesame
agent --sas 'sv=2020&sig=opensesame%3D'
agent https://x/y?X-Amz-Signature=opensesame&X-Amz-Credential=opensesame
agent https://x/y?sig=opensesame
agent https://x/y?key=opensesame
agent https://x/y?apikey=opensesame
agent https://x/y#access_token=opensesame
python -c 'requests.get(x, auth=("me", "opensesame"))'
python -c 'login("me", password="opensesame")'
python -c 'openai.api_key = "opensesame"'
node -e 'process.env.TOKEN="opensesame"'
powershell -Command "$env:TOKEN='opensesame'"
powershell -c "ConvertTo-SecureString 'opensesame' -AsPlainText"
cmd /c "set TOKEN=opensesame && x"
sh -c 'read -r X <<< "opensesame"'
sh -c 'export TOKEN="$(cat <<< opensesame)"; x'
fish -c 'set -x TOKEN opensesame'
sh -c 'TOKEN=opensesame; export TOKEN'
doctl auth init -t opensesame
doctl auth init --access-token opensesame
stripe login --api-key opensesame
ngrok config add-authtoken opensesame
ngrok authtoken opensesame
tailscale up --authkey=opensesame
tailscale up --auth-key opensesame
cloudflared tunnel run --token opensesame
huggingface-cli login --token opensesame
hf auth login --token opensesame
wandb login opensesame
wandb login --relogin opensesame
sentry-cli --auth-token opensesame
snyk auth opensesame
railway login --token opensesame
pulumi config set --secret x opensesame
pulumi config set --secret dbPassword opensesame
supabase login --token opensesame
cargo login opensesame
nuget setapikey opensesame
nuget push x -ApiKey opensesame
dotnet nuget push x -k opensesame
dotnet nuget push x --api-key opensesame
dotnet user-secrets set a opensesame
composer config github-oauth.github.com opensesame
composer config http-basic.x me opensesame
mvn -Dgpg.passphrase=opensesame
gradle -PsigningPassword=opensesame
java -Djavax.net.ssl.keyStorePassword=opensesame -jar x
bundle config gems.x.org opensesame
bundle config set --global gems.x.org me:opensesame
travis encrypt opensesame
circleci setup --token opensesame
expect -c 'send "opensesame\r"'
databricks configure --token opensesame
snowsql -a x -u me --password opensesame
slackcat --tok opensesame
"""
IN_SCRIPTS_AND_DATA: list[list[str]] = [
    ["sh", "-c", "cat <<EOF | docker login --password-stdin\nopensesame\nEOF\nmake"],
    ["sh", "-c", "docker login --password-stdin <<EOF\nopensesame\nEOF"],
    ["sh", "-c", "cat > ~/.netrc <<X\nmachine x login me password opensesame\nX"],
    ["sh", "-c", "bash -c 'vault login opensesame'"],
    ["sh", "-c", "if true; then vault login opensesame; fi"],
    ["sh", "-c", "A=b vault login opensesame && make"],
    ["sh", "-c", 'T="$(vault unwrap opensesame)"; make'],
    ["sh", "-c", "T=$(vault unwrap opensesame); make"],
    ["sh", "-c", "T=`vault unwrap opensesame`; make"],
    ["bash", "-c", "read T < <(vault unwrap opensesame); make"],
    ["ssh", "me@host", "vault login opensesame"],
    ["ssh", "me@host", "vault", "login", "opensesame"],
    ["sudo", "-E", "bash", "-c", "vault login opensesame"],
    ["timeout", "5", "vault", "login", "opensesame"],
    ["env", "A=b", "vault", "login", "opensesame"],
    ["xargs", "-n1", "vault", "login", "opensesame"],
    ["uv", "run", "wandb", "login", "opensesame"],
    ["npx", "vercel", "-t", "opensesame"],
    ["nice", "-n", "5", "sh", "-c", "vault login opensesame"],
    ["kubectl", "exec", "x", "--", "sh", "-c", "vault login opensesame"],
    ["docker", "run", "--rm", "x", "sh", "-c", "mysql -popensesame"],
    ["/usr/local/bin/vault", "login", "opensesame"],
    ["vault.exe", "login", "opensesame"],
    ["sh", "-c", "cmd <<<opensesame"],
    ["sh", "-c", "cmd 0<<<opensesame"],
    ["bash", "-c", "cmd <<<'opensesame more'"],
    ["sh", "-c", "printf '%s' opensesame | openssl passwd -stdin"],
    ["sh", "-c", "echo opensesame | tr -d '\\n' | gh auth login --with-token"],
    ["sh", "-c", "echo opensesame | vault kv put secret/x y=-"],
    ["sh", "-c", "vault login opensesame \\\n --no-print"],
    ["sh", "-c", "vault \\\n login \\\n opensesame"],
    ["watch", "-n", "5", "vault login opensesame"],
    ["sh", "-c", "echo 'unbalanced; vault login opensesame"],
    ["sh", "-euxc", "vault login opensesame"],
    ["bash", "--login", "-c", "vault login opensesame"],
    ["fish", "-c", "vault login opensesame"],
    ["sh", "-c", 'eval "vault login opensesame"'],
    ["python", "-c", "import os; os.system('vault login opensesame')"],
    ["python", "-c", "subprocess.run(['mysql', '-popensesame'])"],
    ["make", "TOKEN=opensesame"],
    ["make", "-e", "PASSWORD=opensesame"],
    ["ssh", "-o", "ProxyCommand=sshpass -p opensesame ssh x", "h"],
    ["git", "-c", "http.extraHeader=PRIVATE-TOKEN: opensesame", "clone", "x"],
    ["git", "push", "https://me:opensesame@host/x"],
    ["curl", "-H", "Authorization: opensesame"],
    ["curl", "-HAuthorization: Bearer opensesame"],
    ["curl", "--header", "Authorization:Bearer opensesame"],
    ["curl", "-H", "authorization: Bearer opensesame x"],
    ["curl", "-H", "Proxy-Authorization: Basic opensesame"],
    ["claude", "-p", "use Authorization: Bearer opensesame9 for it"],
    ["agent", "--header=Authorization: Bearer opensesame"],
    ["agent", "--bearer", "opensesame"],
    ["agent", "sqlite:///x?password=opensesame"],
    ["agent", "amqp://me:opensesame@h:5672/%2f"],
    ["agent", "redis://:opensesame@h:6379"],
    ["agent", "mongodb://me:opensesame@a,b,c/db"],
    ["agent", "jdbc:mysql://h/db?user=me&password=opensesame"],
    ["agent", "jdbc:oracle:thin:me/opensesame@h:1521:x"],
    ["agent", "https://me:opensesame@host:8080/a?b"],
    ["agent", "https://me:p@opensesame@host"],
    ["agent", "socks5://me:opensesame@h:1"],
    ["agent", "DefaultEndpointsProtocol=https;AccountName=a;AccountKey=opensesame;x"],
    ["agent", "-----BEGIN RSA PRIVATE KEY-----\nopensesame\n-----END RSA PRIVATE KEY-----"],
    ["agent", "-----BEGIN RSA PRIVATE KEY-----\\nopensesame\\n-----END RSA PRIVATE KEY-----"],
    ["agent", "-----BEGIN PGP MESSAGE-----\n\nopensesame\n"],
    ["agent", "PIN=opensesame"],
    ["agent", "--PIN", "opensesame"],
    ["env", "CARD_PIN=opensesame", "x"],
    ["agent", '{"auth": {"pin": "123opensesame"}}'],
    ["agent", "--config", "api_key: opensesame"],
    ["agent", "--set", "auth.token=opensesame"],
    ["agent", "--set-string=postgresql.postgresqlPassword=opensesame"],
    ["codex", "-c", 'model_providers.x.env_http_headers.token="opensesame"'],
    ["codex", "-c", "shell_environment_policy.set.API_KEY=opensesame"],
    ["claude", "mcp", "add", "x", "-e", "API_KEY=opensesame", "--", "npx"],
    [
        "claude",
        "mcp",
        "add",
        "--transport",
        "http",
        "x",
        "https://x",
        "--header",
        "X-Api-Key: opensesame",
    ],
    ["claude", "--settings", '{"env": {"ANTHROPIC_API_KEY": "opensesame"}}'],
    [
        "claude",
        "--mcp-config",
        '{"mcpServers":{"x":{"headers":{"Authorization":"Bearer opensesame"}}}}',
    ],
]
READABLE: list[list[str]] = [
    ["sh", "-c", "npm config set registry https://registry.npmjs.org && npm ci"],
    ["git", "commit", "-m", "fix: auth: token refresh; set password for the test user"],
    ["ssh", "host", "echo login; systemctl status vault"],
    ["kubectl", "config", "set-context", "--current", "--namespace=token-service"],
    ["vault", "kv", "get", "secret/app"],
    ["claude", "-p", "write the parser of tokens", "--max-tokens", "1000"],
    [
        "claude",
        "-p",
        "Fix the login page: when vault login fails, mysql -h db should "
        "be retried and the secret set should be kept; see docs/auth.md",
    ],
    ["claude", "-p", "vault login does not work behind the proxy, find out why"],
    [
        "claude",
        "-p",
        "In src/auth/session.py the password check is wrong: password is compared "
        "before hashing. Rename token to key everywhere & run pytest -k token",
    ],
    [
        "claude",
        "-p",
        "The user's pin code dialog should accept pin codes "
        'with 4 digits; the API returns {"ok": true}',
    ],
    [
        "claude",
        "-p",
        "Review commit 3f9c1b2a7d8e4f5061728394a5b6c7d8e9f0a1b2 "
        "and session 3f2a8c1e-8f4a-4b1c-9d2e-0123456789ab",
    ],
    [
        "claude",
        "--resume",
        "3f2a8c1e-8f4a-4b1c-9d2e-0123456789ab",
        "--session-id",
        "3f2a8c1e-8f4a-4b1c-9d2e-0123456789ab",
    ],
    ["git", "checkout", "3f9c1b2a7d8e4f5061728394a5b6c7d8e9f0a1b2"],
    ["git", "clone", "git@github.com:acme/My-Project2.git"],
    ["git", "log", "--author", "me@example.org", "--since=2024-01-01"],
    ["git", "config", "user.email", "me@x.org"],
    [
        "docker",
        "run",
        "-u",
        "1000:1000",
        "-p",
        "8080:80",
        "registry.io/a/b@sha256:3f9c1b2a7d8e4f5061728394a5b6c7d8e9f0a1b23f9c1b2a7d8e4f5061728394",
    ],
    [
        "docker",
        "run",
        "--rm",
        "-v",
        "/home/me/Projects/MyApp2/src:/app",
        "-w",
        "/app",
        "python:3.11",
        "pytest",
        "-p",
        "no:cacheprovider",
    ],
    ["docker", "compose", "-p", "myproject", "up", "-d"],
    ["docker", "exec", "-it", "web", "python", "manage.py", "migrate", "-p", "3"],
    ["kubectl", "get", "pods", "-n", "kube-system", "-l", "app=web"],
    ["kubectl", "exec", "web-7d4b9c6f5-x2x8z", "--", "env", "FOO=bar"],
    ["make", "-j", "4", "TARGET=release", "PREFIX=/usr/local"],
    ["ssh", "me@host", "-p", "22", "ls", "-la"],
    ["ssh", "me@host", "cd /srv/app && git pull && make -j4 test"],
    ["scp", "-P", "22", "me@host:/a/b", "."],
    ["rg", "password", "src/"],
    ["grep", "-r", "token", "."],
    ["grep", "-rn", "secret", "src", "--include=*.py"],
    ["rg", "-t", "py", "API_KEY", "-g", "!tests"],
    ["sh", "-c", 'for f in *.py; do echo "$f"; python -m py_compile "$f" || exit 1; done'],
    ["sh", "-c", "echo hello world | tee out.txt && cat < in.txt > out.txt 2>&1"],
    ["bash", "-lc", "cd /work && npm ci && npm run build -- --mode production"],
    ["bash", "-c", "cat <<EOF > a.txt\nhello world\nEOF\nmake"],
    ["python", "-c", "import os; print(os.environ['HOME'], sorted(x, key=len))"],
    ["python", "-m", "pytest", "tests/test_key.py::test_a", "-k", "token or secret"],
    ["node", "--max-old-space-size=4096", "server.js", "--port", "3000"],
    [
        "node_modules/.bin/AbstractSingletonProxyFactoryBean2",
        "src/components/UserProfile2/HeaderWithLongName3.tsx",
    ],
    ["npm", "install", "@types/node@18.2.0", "npm:react@18.2", "--save-exact"],
    [
        "pip",
        "install",
        "requests==2.31.0",
        "--hash=sha256:3f9c1b2a7d8e4f5061728394a5b6c7d8e9f0a1b23f9c1b2a7d8e4f5061728394",
    ],
    ["/nix/store/s66mzxpvicwk07gjbjfw9izjfa797vsw-hello-2.12/bin/hello", "-v"],
    ["terraform", "apply", "-var", "region=eu-west-1", "-auto-approve"],
    ["aws", "s3", "cp", "s3://bucket/key/path", "./x", "--profile", "dev"],
    ["aws", "configure", "set", "region", "eu-west-1"],
    ["curl", "-sS", "-o", "out.json", "https://api.example.org/v1/items?page=2&sort=name"],
    [
        "curl",
        "-X",
        "POST",
        "-H",
        "Content-Type: application/json",
        "-d",
        '{"name": "x", "count": 3}',
        "https://x/y",
    ],
    ["curl", "-x", "http://proxy:3128", "https://x"],
    ["psql", "-h", "db", "-U", "me", "-p", "5432", "-c", "select * from users where id = 5"],
    ["psql", "postgresql://me@db:5432/x"],
    ["mysql", "-u", "root", "-h", "db", "x"],
    ["redis-cli", "-h", "db", "-p", "6379", "get", "a"],
    ["ansible-playbook", "-i", "hosts", "site.yml", "-e", "version=1.2.3"],
    ["uv", "run", "--with", "httpx", "python", "x.py"],
    ["uv", "run", "http", "GET", "x"],
    ["cargo", "test", "--", "--nocapture"],
    ["cargo", "login"],
    ["npm", "login"],
    ["docker", "login"],
    ["gh", "auth", "login"],
    ["az", "login"],
    ["claude", "mcp", "add", "x", "--", "npx", "-y", "@scope/server", "/path"],
    [
        "codex",
        "exec",
        "--model",
        "gpt-5",
        "--sandbox",
        "workspace-write",
        "Write a test that the login page has a password field",
    ],
    [
        "codex",
        "exec",
        "Please rotate the key named backup-key-2 in config/keys.yaml, then set the timeout to 30",
    ],
    ["aider", "--model", "anthropic/claude-sonnet-4-20250514", "--file", "a.py"],
    ["gpio", "--pin", "13"],
    ["pytest", "--pin-memory", "true"],
    ["env", "TZ=Europe/Berlin", "LANG=de_DE.UTF-8", "agent"],
    ["env", "KEYBOARD=de", "KEYSTONE=x", "MONKEY=george", "PASSENGERS=5", "COMPASS=north", "agent"],
    [
        "agent",
        "--auth-type",
        "oauth2",
        "--auth",
        "basic",
        "--token-file",
        "/run/secrets/token",
        "--secret-name",
        "x",
    ],
    ["agent", "01HZX3J5K8QW9RTYUPASDFGHJK", "V1StGXR8_Z5jdHi6B-myT"],
    [
        "agent",
        "--run-id",
        "run-2024-01-15T10-30-00Z-abcdef123456",
        "--trace",
        "4bf92f3577b34da6a3ce929d0e0e4736",
    ],
    ["go", "test", "./...", "-run", "TestHTTP2ServerHandlesGRPCWebV1RequestsOverTLS13"],
    [
        "gradle",
        ":app:testDebugUnitTest",
        "-Pandroid.testInstrumentationRunnerArguments.class=com.example.MyTest2",
    ],
    ["java", "-cp", "lib/a.jar:lib/b.jar", "-Xmx2g", "com.example.Main"],
    ["ffmpeg", "-i", "in.mp4", "-c:v", "libx264", "-b:v", "2M", "out.mp4"],
    ["rsync", "-av", "--delete", "src/", "me@host:/srv/app/"],
    ["tar", "xzf", "a.tar.gz", "-C", "/tmp"],
    ["find", ".", "-name", "*.key", "-print0"],
    ["sed", "-i", "s/password/passwd/g", "a.txt"],
    ["openssl", "x509", "-in", "cert.pem", "-noout", "-text"],
    ["watch", "-n", "5", "ls -la /var/log"],
    ["sudo", "systemctl", "restart", "nginx"],
    ["sudo", "-u", "postgres", "psql", "-p", "5432"],
    ["make", "login"],
    ["cypress", "run", "--spec", "cypress/e2e/login.cy.js", "-p", "3000"],
    ["playwright", "test", "login", "-p", "3000"],
]
DRAWN: dict[str, Callable[[random.Random], str]] = {
    "32 bytes": lambda r: base64.b64encode(r.randbytes(32)).decode(),
    "32 bytes for URLs": lambda r: base64.urlsafe_b64encode(r.randbytes(32)).decode().rstrip("="),
    "letters and digits": lambda r: "".join(r.choices(string.ascii_letters + string.digits, k=40)),
    "of AWS": lambda r: "".join(r.choices(string.ascii_letters + string.digits + "/+", k=40)),
}


@pytest.mark.parametrize("line", TOLD_BY_PLACE_OR_NAME.strip().splitlines())
def test_where_a_program_takes_its_secret_it_is_masked(line: str) -> None:
    assert SECRET in line
    command = shlex.split(line)
    told = masked_command(command)

    assert SECRET not in shlex.join(told)
    assert len(told) == len(command)


@pytest.mark.parametrize("line", TOLD_BY_PLACE_OR_NAME.strip().splitlines()[:12])
@pytest.mark.parametrize(
    "around",
    [
        "sudo -E {}",
        "env A=b {}",
        "timeout 5 {}",
        "docker exec -it x {}",
        "sh -c {quoted}",
        "ssh me@host {quoted}",
        "sudo bash -lc {quoted}",
        "sh -c {twice}",
    ],
)
def test_whatever_carries_a_program_it_is_masked(line: str, around: str) -> None:
    quoted = shlex.quote(line)
    twice = shlex.quote(f"bash -c {quoted}; make")

    assert SECRET not in shlex.join(
        masked_command(shlex.split(around.format(line, quoted=quoted, twice=twice)))
    )


@pytest.mark.parametrize("command", IN_SCRIPTS_AND_DATA, ids=" ".join)
def test_what_scripts_and_data_hold_is_masked(command: list[str]) -> None:
    told = shlex.join(masked_command(command))

    assert SECRET not in told
    assert told.startswith(command[0])


@pytest.mark.parametrize("command", READABLE, ids=" ".join)
def test_what_is_no_secret_stays_readable(command: list[str]) -> None:
    assert masked_command(command) == command


@pytest.mark.parametrize("kind", DRAWN)
def test_what_was_drawn_is_told_by_its_randomness(kind: str) -> None:
    """Best effort: of a hundred a few look as if somebody had made them up."""
    dice = random.Random(kind)
    drawn = [DRAWN[kind](dice) for _ in range(500)]

    assert sum(one in masked(f"it is {one}.") for one in drawn) < 25


def test_what_people_write_is_not_taken_for_drawn() -> None:
    """Of all long words in this repository's client only made-up secrets are."""
    from holdfast.secrets.blobs import masked_blobs

    package = Path(masked_blobs.__code__.co_filename).parents[1]
    texts = [path.read_text(encoding="utf-8") for path in package.rglob("*.py")]

    assert len(texts) > 50
    assert [text for text in texts if masked_blobs(text) != text] == []


@pytest.mark.parametrize(
    ("pin", "is_masked"),
    [("1234", True), ("123456", True), ("13", False), ("7", False)],
)
def test_a_pin_of_a_board_is_none_of_a_card(pin: str, is_masked: bool) -> None:
    for command in (["tool", "--pin", pin], ["tool", f"--pin={pin}"], ["env", f"CARD_PIN={pin}"]):
        assert (pin not in " ".join(masked_command(command))) == is_masked


@pytest.mark.parametrize(
    "text",
    [
        "'\"" * 2_000,
        "mysql " * 700,
        "echo a|" * 600,
        "$(" * 2_000,
        "[" + "'a' " * 1_000,
        "[" + "'a'," * 1_000,
        "\\" * 4_000,
        "auth=(" * 700,
        "<<A\n" * 1_000,
        "bash -c '" * 400,
        "aA0" * 1_300,
        " " * 4_000,
    ],
    ids=lambda text: text[:8],
)
def test_nothing_takes_for_ever(text: str) -> None:
    """A wrong expression would: the test would not end."""
    for told in (masked(text), masked_script(text), *masked_command(["python", "-c", text])):
        assert isinstance(told, str)


def test_a_line_of_the_sdk_is_a_script() -> None:
    assert masked_script(f"make && vault login {SECRET} -v") == "make && vault login *** -v"
    assert masked_script("make && npm test") == "make && npm test"


def test_a_random_word_is_masked_wherever_it_stands() -> None:
    word = secrets.token_hex(4) + "aB3xK9pQ2mZ7vN4cL8rT5wY1"
    for command in (["agent", word], ["agent", f"--x={word}"], ["sh", "-c", f"agent {word}"]):
        assert word not in shlex.join(masked_command(command))
