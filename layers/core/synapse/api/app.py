"""The whole API over a set of services."""

from __future__ import annotations

from synapse.api.admin import add_admin_routes
from synapse.api.jobs import add_job_routes
from synapse.api.keys import add_key_routes, add_tenant_routes
from synapse.api.login import add_login_route
from synapse.api.meta import add_documentation_routes, add_meta_routes
from synapse.api.openai.batches import add_batch_routes
from synapse.api.openai.chat import add_chat_routes
from synapse.api.openai.completions import add_completion_routes
from synapse.api.openai.embeddings import add_embeddings_route
from synapse.api.openai.files import add_file_routes
from synapse.api.openai.responses.route import add_responses_route
from synapse.api.openai.uploads import add_upload_routes
from synapse.api.resolver import Api
from synapse.api.services import Services
from synapse.api.tasks import add_task_routes
from synapse.api.usage import add_usage_route
from synapse.api.webhooks import add_webhook_routes


def create_api(services: Services) -> Api:
    """The resolver with every route registered."""
    api = Api(services.identify, services.cors_origins, services.recognise)
    add_job_routes(api, services)
    add_task_routes(api, services)
    add_chat_routes(api, services)
    add_completion_routes(api, services)
    add_responses_route(api, services)
    add_embeddings_route(api, services)
    add_file_routes(api, services)
    add_upload_routes(api, services)
    add_batch_routes(api, services)
    add_usage_route(api, services)
    add_meta_routes(api, services)
    add_admin_routes(api, services)
    add_key_routes(api, services)
    add_tenant_routes(api, services)
    add_login_route(api, services)
    add_webhook_routes(api, services)
    add_documentation_routes(api)
    return api
